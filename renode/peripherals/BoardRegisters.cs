// The motherboard registers that the terminal's firmware uses: SYS_24MHZ (0x5C), a counter at 24 MHz,
// and SYS_CFGCTRL (0xA4), which resets the board. Source: Arm DUI 0447.
//
// The SRAM is given up at every reset and power-on: it is filled with a pattern, so that firmware
// that relies on it is found out.
//
// Renode leaves it to the CPU to wait for the clock. While a cut, a fault or an abort keeps the CPU
// still, virtual time would run ahead, and the next start would wait until the clock has caught up.
// So the board waits at each synchronization for which the CPU has not.

using System;
using System.IO;
using System.Linq;
using System.Threading;

using Antmicro.Renode.Core;
using Antmicro.Renode.Logging;
using Antmicro.Renode.Peripherals.Bus;
using Antmicro.Renode.Peripherals.CPU;
using Antmicro.Renode.Peripherals.Memory;
using Antmicro.Renode.Time;

namespace Antmicro.Renode.Peripherals.Unbrick
{
    public static class BoardExtensions
    {
        // Of an ELF file. A terminal runs without symbols, too, so a file may be missing.
        public static void LoadSymbolsIfThere(this IMachine machine, string path)
        {
            if(File.Exists(path))
            {
                machine.SystemBus.LoadSymbolsFrom(path);
            }
            else
            {
                machine.Log(LogLevel.Info, "no symbols, since there is no file {0}", path);
            }
        }
    }

    public class BoardRegisters : IDoubleWordPeripheral, IKnownSize
    {
        public BoardRegisters(IMachine machine, MappedMemory sram)
        {
            this.machine = machine;
            this.sram = sram;
            FillSram(); // no reset comes before the first start
            machine.LocalTimeSource.SyncHook += WaitForTheClock;
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
            FillSram();
            foreach(var cpu in machine.SystemBus.GetCPUs().OfType<IControllableCPU>())
            {
                cpu.IsHalted = false; // as it was since the reset was asked for, or the power was cut
            }
        }

        private void FillSram()
        {
            var garbage = new byte[sram.Size];
            new Random(0x5EED).NextBytes(garbage);
            sram.WriteBytes(0, garbage, garbage.Length);
        }

        private void WaitForTheClock(TimeInterval now)
        {
            var time = machine.LocalTimeSource;
            if(!time.AdvanceImmediately)
            {
                Thread.Sleep((int)Math.Min(time.ElapsedVirtualHostTimeDifference.TotalMilliseconds, LongestWait));
            }
        }

        private readonly IMachine machine;
        private readonly MappedMemory sram;

        private const int LongestWait = 20; // ms: `pause` waits for it
        private const long Counter = 0x5C;
        private const long Control = 0xA4;
        private const uint Reboot = 0xC0900000; // start, write, function 9, motherboard
    }
}
