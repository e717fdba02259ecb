// The flash controller of STM32F4 with one bank: sectors, parallelism, option bytes. Sources: RM0090
// and RM0383, whose bus error after a wrong key is told as a fault.

using System.Globalization;
using System.Linq;

using Antmicro.Renode.Core;
using Antmicro.Renode.Peripherals.Bus;

namespace Antmicro.Renode.Peripherals.Unbrick
{
    // HALs write the option register by bytes and half-words.
    [AllowedTranslations(AllowedTranslation.ByteToDoubleWord | AllowedTranslation.WordToDoubleWord)]
    public class FlashStm32F4 : ChipFlash
    {
        // Times are in microseconds, of 32 bits at a time; parallelism is how many bits the supply
        // allows; sectors are the sizes of all, in hexadecimal.
        public FlashStm32F4(IMachine machine, uint programTime, uint erase16kTime, uint erase64kTime,
            uint erase128kTime, uint massEraseTime, uint parallelism, string sectors,
            bool readProtectionError = false) : base(machine, programTime, erase16kTime, massEraseTime)
        {
            this.erase64kTime = erase64kTime;
            this.erase128kTime = erase128kTime;
            this.parallelism = parallelism;
            this.readProtectionError = readProtectionError;
            sizes = sectors.Split(' ').Select(size => uint.Parse(size, NumberStyles.HexNumber)).ToArray();
            IRQ = new GPIO();
            ResetRegisters();
        }

        public GPIO IRQ { get; private set; }

        public override long Size
        {
            get { return 0x400; }
        }

        public override uint ReadDoubleWord(long offset)
        {
            Settle();
            switch(offset)
            {
            case AccessControl:
                return access;
            case Status:
                return status | (Busy ? StatusBusy : 0u);
            case Control:
                return control | (Busy && IsErase ? ControlStart : 0u);
            case OptionControl:
                return options;
            default:
                return 0;
            }
        }

        public override void WriteDoubleWord(long offset, uint value)
        {
            Settle();
            switch(offset)
            {
            case AccessControl:
                access = value & 0x1F0F;
                break;
            case Key:
                if(TakeKey(ref keys, value, 0x45670123, 0xCDEF89AB))
                {
                    control &= ~ControlLock;
                }
                break;
            case OptionKey:
                if(TakeKey(ref optionKeys, value, 0x08192A3B, 0x4C5D6E7F))
                {
                    options &= ~OptionLock;
                }
                break;
            case Status:
                status &= ~(value & (StatusErrors | StatusDone | StatusError));
                break;
            case Control:
                TakeControl(value);
                break;
            case OptionControl:
                TakeOptions(value);
                break;
            }
            Show();
        }

        protected override void ResetRegisters()
        {
            access = status = 0;
            control = ControlLock;
            keys = optionKeys = 0;
            half = null;
            LoadOptions();
            Show();
        }

        // That it is done is shown only while its interrupt is enabled (RM0090, 3.9.4).
        protected override void Finished()
        {
            if((control & ControlDoneInterrupt) != 0)
            {
                status |= StatusDone;
            }
            Show();
        }

        // A store waits for what is under way (RM0090, 3.6).
        protected override void TakeStore(FlashRegion region, uint offset, int size, uint value)
        {
            Await();
            var at = region.First + offset;
            var wanted = 1 << (int)(control >> ControlSizeShift & 3);
            if((control & ControlLock) != 0)
            {
                Refuse(StatusSequence, "flash-locked", "0x{0:x} at flash offset 0x{1:x} while the flash is locked", value, at);
            }
            else if(region.First != 0 || (control & (ControlProgram | ControlErase | ControlMassErase)) != ControlProgram)
            {
                Refuse(StatusSequence, "flash-stray", "a store of 0x{0:x} at flash offset 0x{1:x} programs nothing", value, at);
            }
            else if(wanted * 8 > parallelism)
            {
                Refuse(StatusParallelism, "flash-width", "{0} bytes at a time, which the supply does not allow", wanted);
            }
            else if(wanted == 8 && size == 4)
            {
                TakeHalf(region, offset, Bytes(value, 4));
            }
            else if(size != wanted)
            {
                Refuse(StatusParallelism, "flash-width", "a store of {0} bytes at flash offset 0x{1:x}", size, at);
            }
            else
            {
                Program(region, offset, Bytes(value, size));
            }
            Show();
        }

        // Two words make a program of 64 bits.
        private void TakeHalf(FlashRegion region, uint offset, byte[] data)
        {
            if(offset % 8 == 0)
            {
                half = data;
                halfOffset = offset;
            }
            else if(half != null && offset == halfOffset + 4)
            {
                Program(region, halfOffset, half.Concat(data).ToArray());
                half = null;
            }
            else
            {
                Refuse(StatusParallelism, "flash-width", "a store of 4 bytes at flash offset 0x{0:x}", offset);
            }
        }

        // Cells that are programmed are cleared further. The chip tells no error, though they do not
        // hold what was asked for.
        private void Program(FlashRegion region, uint offset, byte[] data)
        {
            if(IsProtected(FindSector(offset)))
            {
                Refuse(StatusProtected, "flash-protected", "flash offset 0x{0:x} is protected", offset);
                return;
            }
            if(data.Where((cell, i) => (cell & ~region.Cells[offset + i]) != 0).Any())
            {
                Fault("flash-dirty", "programmed flash offset 0x{0:x} without an erase", offset);
            }
            Begin(region, offset, (uint)data.Length, data, ProgramTime);
        }

        // A write waits for what is under way (RM0090, 3.9.5).
        private void TakeControl(uint value)
        {
            Await();
            if((control & ControlLock) != 0)
            {
                if((value & ControlCommands) != 0)
                {
                    Fault("flash-locked", "0x{0:x} for the control register while the flash is locked", value);
                }
                return;
            }
            control = value & ControlWritable;
            half = null;
            if((value & ControlLock) != 0)
            {
                keys = 0;
            }
            if((value & ControlStart) != 0)
            {
                Start();
            }
        }

        private void Start()
        {
            var sector = (int)(control >> ControlSectorShift & 0xF);
            var erases = control & (ControlErase | ControlMassErase);
            uint at;
            var main = Find(Main, out at);
            if(erases == ControlErase && sector < sizes.Length)
            {
                if(IsProtected(sector))
                {
                    Refuse(StatusProtected, "flash-protected", "sector {0} is protected", sector);
                }
                else
                {
                    var start = (uint)sizes.Take(sector).Sum(size => size);
                    Begin(main, start, sizes[sector], null, FindEraseTime(sizes[sector]));
                }
            }
            else if(erases == ControlMassErase)
            {
                if(Enumerable.Range(0, sizes.Length).Any(IsProtected))
                {
                    Refuse(StatusProtected, "flash-protected", "a sector is protected");
                }
                else
                {
                    Begin(main, 0, (uint)main.Size, null, FindEraseTime((uint)main.Size));
                }
            }
            else
            {
                Refuse(StatusSequence, "flash-command", "nothing is to be started: control is 0x{0:x}", control);
            }
        }

        private void TakeOptions(uint value)
        {
            if((options & OptionLock) != 0)
            {
                if((value & ~options) != 0)
                {
                    Fault("flash-locked", "0x{0:x} for the option register while it is locked", value);
                }
                return;
            }
            Await();
            if(ReadProtection == ProtectedForEver)
            {
                Fault("flash-protected", "0x{0:x} for the option register at protection level 2", value);
                return;
            }
            options = value & (OptionWritable | (readProtectionError ? OptionMode : 0));
            if((value & OptionLock) != 0)
            {
                optionKeys = 0;
            }
            if((value & OptionStart) != 0)
            {
                ProgramOptions();
            }
        }

        // What the register says is erased and programmed; who leaves level 1 has the flash erased
        // before (RM0090, 3.7.3). The core stands still until then.
        private void ProgramOptions()
        {
            uint at;
            var main = Find(Main, out at);
            var cells = Find(Options, out at);
            options &= ~OptionStart;
            var leaves = ReadProtection != Unprotected && (options >> 8 & 0xFF) == Unprotected;
            if(leaves && !Begin(main, 0, (uint)main.Size, null, FindEraseTime((uint)main.Size)))
            {
                return;
            }
            Await();
            if(!Begin(cells, 0, (uint)cells.Size, null, FindEraseTime((uint)cells.Size)))
            {
                return;
            }
            Await();
            var data = Enumerable.Repeat((byte)0xFF, OptionsSize).ToArray();
            data[0] = (byte)((options & OptionUser) | 3);
            data[1] = (byte)(options >> 8);
            data[8] = (byte)(options >> 16);
            data[9] = (byte)((options >> 24 & 0xF) | 0x70 | ((options & OptionMode) != 0 ? 0x80u : 0));
            Begin(cells, 0, OptionsSize, data, ProgramTime);
        }

        private void LoadOptions()
        {
            uint at;
            var region = Find(Options, out at);
            if(region == null) // this is being made
            {
                return;
            }
            var cells = region.Cells;
            var protection = (uint)(cells[8] | cells[9] << 8);
            options = OptionLock | (cells[0] & OptionUser) | (uint)cells[1] << 8 | (protection & 0xFFF) << 16;
            if(readProtectionError && (protection & 0x8000) != 0 && protection != 0xFFFF) // blank protects nothing
            {
                options |= OptionMode;
            }
        }

        // A bit that is 0 protects its sector; in the other mode one that is 1 does.
        private bool IsProtected(int sector)
        {
            return (options >> (16 + sector) & 1) == ((options & OptionMode) != 0 ? 1u : 0u);
        }

        private int FindSector(uint offset)
        {
            var sector = 0;
            for(var end = sizes[0]; sector + 1 < sizes.Length && offset >= end; end += sizes[sector])
            {
                sector++;
            }
            return sector;
        }

        // It takes longer when fewer bits are erased at a time (data sheet, flash memory
        // characteristics).
        private uint FindEraseTime(uint length)
        {
            var kind = length <= 0x4000 ? 0 : length <= 0x10000 ? 1 : length <= 0x20000 ? 2 : 3;
            var times = new[] { EraseTime, erase64kTime, erase128kTime, MassEraseTime };
            return times[kind] / 100 * ErasePercent[kind][control >> ControlSizeShift & 3];
        }

        // The error is shown as such only while its interrupt is enabled (RM0090, 3.9.4).
        private void Refuse(uint error, string kind, string format, params object[] arguments)
        {
            status |= error | ((control & ControlErrorInterrupt) != 0 ? StatusError : 0);
            Fault(kind, format, arguments);
        }

        private void Show()
        {
            IRQ.Set(((status & StatusDone) != 0 && (control & ControlDoneInterrupt) != 0)
                || ((status & StatusError) != 0 && (control & ControlErrorInterrupt) != 0));
        }

        private byte ReadProtection
        {
            get
            {
                uint at;
                return Find(Options, out at).Cells[1];
            }
        }

        private uint access;
        private uint status;
        private uint control;
        private uint options;
        private int keys; // how many of the two have come
        private int optionKeys;
        private byte[] half; // the first word of a program of 64 bits; null: none
        private uint halfOffset;
        private readonly uint erase64kTime;
        private readonly uint erase128kTime;
        private readonly uint parallelism;
        private readonly bool readProtectionError;
        private readonly uint[] sizes; // of all sectors

        // Of sectors of 16, 64 and 128 KiB, and of all, for 8, 16, 32 and 64 bits at a time.
        private static readonly uint[][] ErasePercent =
        {
            new uint[] { 160, 120, 100, 100 },
            new uint[] { 218, 127, 100, 100 },
            new uint[] { 200, 130, 100, 100 },
            new uint[] { 200, 137, 100, 100 }
        };

        private const uint Main = 0x08000000;
        private const uint Options = 0x1FFFC000;
        private const int OptionsSize = 16;
        private const byte Unprotected = 0xAA;
        private const byte ProtectedForEver = 0xCC;

        private const uint StatusDone = 1u << 0;
        private const uint StatusError = 1u << 1;
        private const uint StatusProtected = 1u << 4;
        private const uint StatusParallelism = 1u << 6;
        private const uint StatusSequence = 1u << 7;
        private const uint StatusErrors = 0x1F0;
        private const uint StatusBusy = 1u << 16;
        private const uint ControlProgram = 1u << 0;
        private const uint ControlErase = 1u << 1;
        private const uint ControlMassErase = 1u << 2;
        private const int ControlSectorShift = 3;
        private const int ControlSizeShift = 8;
        private const uint ControlStart = 1u << 16;
        private const uint ControlDoneInterrupt = 1u << 24;
        private const uint ControlErrorInterrupt = 1u << 25;
        private const uint ControlLock = 1u << 31;
        private const uint ControlCommands = ControlProgram | ControlErase | ControlMassErase | ControlStart;
        private const uint ControlWritable = 0x8300037F; // all that is known, but for the start
        private const uint OptionLock = 1u << 0;
        private const uint OptionStart = 1u << 1;
        private const uint OptionUser = 0xEC;
        private const uint OptionMode = 1u << 31;
        private const uint OptionWritable = 0x0FFFFFEF;

        private const long AccessControl = 0x00;
        private const long Key = 0x04;
        private const long OptionKey = 0x08;
        private const long Status = 0x0C;
        private const long Control = 0x10;
        private const long OptionControl = 0x14;
    }
}
