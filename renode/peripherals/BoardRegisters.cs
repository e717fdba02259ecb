// The motherboard registers that the terminal's firmware uses: SYS_24MHZ (0x5C), a counter at 24 MHz,
// and SYS_CFGCTRL (0xA4), which resets the board. Source: Arm DUI 0447.
//
// The SRAM is given up at every reset and power-on: it is filled with a pattern, so that firmware
// that relies on it is found out.

using System;
using System.Linq;

using Antmicro.Renode.Core;
using Antmicro.Renode.Logging;
using Antmicro.Renode.Peripherals.Bus;
using Antmicro.Renode.Peripherals.CPU;
using Antmicro.Renode.Peripherals.Memory;

namespace Antmicro.Renode.Peripherals.Unbrick
{
    public class BoardRegisters : IDoubleWordPeripheral, IKnownSize
    {
        public BoardRegisters(IMachine machine, MappedMemory sram)
        {
            this.machine = machine;
            this.sram = sram;
        }

        public long Size
        {
            get { return 0x1000; }
        }

        public uint ReadDoubleWord(long offset)
        {
            if(offset != Counter)
            {
                this.LogUnhandledRead(offset);
                return 0;
            }
            ICPU cpu;
            if(machine.SystemBus.TryGetCurrentCPU(out cpu))
            {
                cpu.SyncTime();
            }
            return unchecked((uint)(ulong)(machine.ElapsedVirtualTime.TimeElapsed.TotalSeconds * 24e6));
        }

        public void WriteDoubleWord(long offset, uint value)
        {
            if(offset != Control || value != Reboot)
            {
                this.LogUnhandledWrite(offset, value);
                return;
            }
            this.Log(LogLevel.Info, "the firmware resets the board");
            ICPU cpu;
            if(machine.SystemBus.TryGetCurrentCPU(out cpu))
            {
                ((IControllableCPU)cpu).IsHalted = true; // until the reset, which comes a moment later
            }
            machine.RequestReset();
        }

        public void Reset()
        {
            var garbage = new byte[sram.Size];
            new Random(0x5EED).NextBytes(garbage);
            sram.WriteBytes(0, garbage, garbage.Length);
            foreach(var cpu in machine.SystemBus.GetCPUs().OfType<IControllableCPU>())
            {
                cpu.IsHalted = false; // as it was since the reset was asked for, or the power was cut
            }
        }

        private readonly IMachine machine;
        private readonly MappedMemory sram;

        private const long Counter = 0x5C;
        private const long Control = 0xA4;
        private const uint Reboot = 0xC0900000; // start, write, function 9, motherboard
    }
}
