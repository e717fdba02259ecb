#!/usr/bin/env bash
# Installs Unbrick and cuts the power in target files, on a CI server. The action in `github` calls
# it. Variables say what is wanted:
#   UNBRICK_TARGETS  target files, one a line
#   UNBRICK_OPTIONS  more options of `unbrick campaign`, with blanks between them
#   UNBRICK_REPORT   the folder for the report
#   UNBRICK_INSTALL  what pip installs; by default this repository
#   PYTHON           makes the environment; by default python3
# It ends as the campaign does: 0 the devices always recovered, 1 they did not, 2 the call is wrong.
set -euo pipefail

targets=()
while IFS= read -r target; do
    read -r target <<<"$target"  # without blanks around it
    if [[ -n $target ]]; then targets+=("$target"); fi
done <<<"${UNBRICK_TARGETS:-}"
if ((${#targets[@]} == 0)); then
    echo "no target file is named (write \`targets: path/to/target.toml\`)" >&2
    exit 2
fi
read -ra options <<<"${UNBRICK_OPTIONS:-}"
report=${UNBRICK_REPORT:-unbrick-report}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

environment=$(mktemp -d "${RUNNER_TEMP:-${TMPDIR:-/tmp}}/unbrick.XXXXXX")
trap 'rm -r "$environment"' EXIT
"${PYTHON:-python3}" -m venv "$environment"
"$environment/bin/python" -m pip install --quiet "${UNBRICK_INSTALL:-$root}"

code=0
"$environment/bin/unbrick" campaign "${targets[@]}" ${options[@]+"${options[@]}"} --out "$report" |
    tee "$environment/summary" || code=$?

# GitHub shows the summary with the run, and the next steps ask whether there is something to upload.
if [[ -n ${GITHUB_STEP_SUMMARY:-} ]]; then
    printf '```\n%s\n```\n' "$(<"$environment/summary")" >>"$GITHUB_STEP_SUMMARY"
fi
if [[ -n ${GITHUB_OUTPUT:-} && -f $report/report.sarif ]]; then
    echo "reported=true" >>"$GITHUB_OUTPUT"
fi
exit "$code"
