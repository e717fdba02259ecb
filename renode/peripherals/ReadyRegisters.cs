// Registers that hold what was written, have a value after a reset, and in which "ready" bits follow
// "enable" bits: clocks and the like. Which ones, a chip's file says (docs/chips.md).

using System;
using System.Collections.Generic;
using System.Linq;

using Antmicro.Renode.Core;
using Antmicro.Renode.Peripherals.Bus;

namespace Antmicro.Renode.Peripherals.Unbrick
{
    public class ReadyRegisters : IDoubleWordPeripheral, IKnownSize
    {
        // Numbers in hexadecimal. resets: "offset=value" each; ready: "offset,mask,offset,mask" each, of
        // what is written and of what follows, which may be of another register here.
        public ReadyRegisters(uint size, string resets = "", string ready = "")
        {
            Size = size;
            foreach(var one in Split(resets, ' '))
            {
                var parts = Split(one, '=').Select(Number).ToArray();
                this.resets[parts[0]] = parts[1];
            }
            rules = Split(ready, ' ').Select(one => Split(one, ',').Select(Number).ToArray()).ToArray();
            Reset();
        }

        public long Size { get; private set; }

        public void Reset()
        {
            values.Clear();
            foreach(var one in resets)
            {
                values[one.Key] = one.Value;
            }
            Follow();
        }

        public uint ReadDoubleWord(long offset)
        {
            uint value;
            return values.TryGetValue((uint)offset, out value) ? value : 0;
        }

        public void WriteDoubleWord(long offset, uint value)
        {
            values[(uint)offset] = value;
            Follow();
        }

        private void Follow()
        {
            foreach(var rule in rules)
            {
                var from = ReadDoubleWord(rule[0]);
                values[rule[2]] = (ReadDoubleWord(rule[2]) & ~rule[3]) | MoveField(from, rule[1], rule[3]);
            }
        }

        // The bits of a field, as those of a mask; both have as many.
        private static uint MoveField(uint value, uint from, uint to)
        {
            uint moved = 0;
            for(var bit = 0; bit < 32; bit++)
            {
                if((to >> bit & 1) == 0 || from == 0)
                {
                    continue;
                }
                var lowest = from & (~from + 1);
                moved |= (value & lowest) != 0 ? 1u << bit : 0;
                from ^= lowest;
            }
            return moved;
        }

        private static string[] Split(string text, char at)
        {
            return text.Split(new[] { at }, StringSplitOptions.RemoveEmptyEntries);
        }

        private static uint Number(string text)
        {
            return Convert.ToUInt32(text, 16);
        }

        private readonly uint[][] rules;
        private readonly Dictionary<uint, uint> resets = new Dictionary<uint, uint>();
        private readonly Dictionary<uint, uint> values = new Dictionary<uint, uint>();
    }
}
