// Keeps the live parts of a page up to date, and sends forms without loading the page anew.
// Without it every page works, too.
"use strict";
(() => {
  const status = document.getElementById("connection");
  let fetching = false;
  let again = false;
  let lost = false;

  const say = (text) => { if (status.textContent !== text) status.textContent = text; };

  // What is shown may be old; this is said until the stream is there again.
  function lose(text) {
    lost = true;
    say(text + " What is shown may be old.");
  }

  // What finds an element again in a fresh page.
  function nameOf(element) {
    if (element.id) return "#" + CSS.escape(element.id);
    const href = element.getAttribute("href");
    return href ? "a[href=" + CSS.escape(href) + "]" : "";
  }

  // Puts the live parts of a page in place of what is shown; the focus stays where it is.
  function show(text) {
    const page = new DOMParser().parseFromString(text, "text/html");
    for (const part of document.querySelectorAll("[data-live][id]")) {
      const fresh = page.getElementById(part.id);
      if (!fresh) continue;
      part.hidden = fresh.hidden;
      // Each page has a token of its own; that alone is no change.
      const token = fresh.querySelector("input[name=token]");
      const mine = part.querySelector("input[name=token]");
      if (token && mine) for (const t of fresh.querySelectorAll("input[name=token]")) t.setAttribute("value", mine.value);
      // What somebody has opened stays open.
      const opened = part.querySelectorAll("details");
      fresh.querySelectorAll("details").forEach((one, at) => { one.open = at < opened.length && opened[at].open; });
      if (part.innerHTML === fresh.innerHTML) continue;
      const active = document.activeElement;
      const inside = part.contains(active) ? nameOf(active) : "";
      const top = active.scrollTop;
      const grown = fresh.innerHTML.trim().startsWith(part.innerHTML.trim());
      if (part.getAttribute("role") === "log" && grown) {
        // Only what is new is read out.
        for (const line of [...fresh.children].slice(part.children.length)) part.append(line);
      } else {
        part.replaceChildren(...fresh.childNodes);
      }
      if (inside) {
        const now = part.querySelector(inside) || document.getElementById("main");
        now.focus({ preventScroll: true });
        now.scrollTop = top;
      }
      if (part.getAttribute("role") === "log") part.scrollTop = part.scrollHeight;
    }
  }

  async function refresh() {
    if (fetching) { again = true; return; }
    fetching = true;
    do {
      again = false;
      try {
        const answer = await fetch(location.href, { headers: { "X-Live": "1" } });
        if (answer.redirected) { location.reload(); return; }
        if (answer.ok) show(await answer.text());
      } catch {
        lose("The customer center does not answer.");
      }
    } while (again);
    fetching = false;
  }

  if (document.body.dataset.topic) {
    const events = new EventSource("/live?topic=" + encodeURIComponent(document.body.dataset.topic));
    events.addEventListener("change", refresh);
    events.addEventListener("open", () => {
      if (lost) say("");
      lost = false;
    });
    events.addEventListener("error", () => {
      lose("The connection is lost.");
      if (events.readyState === EventSource.CLOSED) refresh();
    });
    window.addEventListener("pagehide", () => events.close());
  }

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!("quiet" in form.dataset)) return;
    event.preventDefault();
    const fields = new URLSearchParams(new FormData(form));
    if (event.submitter && event.submitter.name) fields.set(event.submitter.name, event.submitter.value);
    try {
      const answer = await fetch(form.action, { method: "POST", body: fields });
      const text = await answer.text();
      if (answer.url.endsWith("/sign-in")) { location.reload(); return; }
      const page = new DOMParser().parseFromString(text, "text/html");
      const wrong = page.getElementById("error");
      say(wrong ? wrong.textContent : form.dataset.quiet);
      if (!wrong) show(text);
    } catch {
      say("The customer center does not answer. Try again.");
    }
  });

  // A telephone's keys on the keyboard, while a call is on the page.
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.closest("input, textarea, select")) return;
    const key = [...document.querySelectorAll(".keypad button")].find((b) => b.value === event.key);
    if (key) { event.preventDefault(); key.click(); }
  });

  const said = document.getElementById("said");
  if (said) said.scrollTop = said.scrollHeight;
})();
