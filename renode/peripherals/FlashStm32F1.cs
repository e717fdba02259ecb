// The flash controller of STM32F1: half-words and pages. Sources: RM0008 and PM0075, whose bus errors
// are told as faults. Option bytes can be read, and protect pages; they are not programmed.

using Antmicro.Renode.Core;

namespace Antmicro.Renode.Peripherals.Unbrick
{
    public class FlashStm32F1 : ChipFlash
    {
        // Times are in microseconds; a bit of WRPR protects so many pages.
        public FlashStm32F1(IMachine machine, uint programTime, uint eraseTime, uint massEraseTime, uint pageSize,
            uint protectedPages) : base(machine, programTime, eraseTime, massEraseTime)
        {
            this.pageSize = pageSize;
            this.protectedPages = protectedPages;
            IRQ = new GPIO();
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
                return access | (access & 0x10) << 1;
            case Status:
                return status | (Busy ? StatusBusy : 0u);
            case Control:
                return control | (Busy && IsErase ? ControlStart : 0u);
            case Address:
                return address;
            case OptionBytes:
                return 0;
            case WriteProtection:
                return Protection;
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
                access = value & 0x1F;
                break;
            case Key:
                if(TakeKey(ref keys, value, 0x45670123, 0xCDEF89AB))
                {
                    control &= ~ControlLock;
                }
                break;
            case Status:
                status &= ~(value & (StatusErrors | StatusDone));
                break;
            case Control:
                TakeControl(value);
                break;
            case Address:
                address = value;
                break;
            }
            Show();
        }

        protected override void ResetRegisters()
        {
            access = 0x10;
            status = address = 0;
            control = ControlLock;
            keys = 0;
            Show();
        }

        protected override void Finished()
        {
            status |= StatusDone;
            Show();
        }

        // A store waits for what is under way (PM0075, 2.3.3).
        protected override void TakeStore(FlashRegion region, uint offset, int size, uint value)
        {
            var at = region.First + offset;
            if(region.First != 0)
            {
                Fault("flash-command", "option bytes are not programmed on Renode: 0x{0:x} at 0x{1:x}", value, at);
            }
            else if((control & ControlLock) != 0)
            {
                Fault("flash-locked", "0x{0:x} at flash offset 0x{1:x} while the flash is locked", value, at);
            }
            else if((control & ControlProgram) == 0)
            {
                Fault("flash-stray", "a store of 0x{0:x} at flash offset 0x{1:x} programs nothing", value, at);
            }
            else if(size != 2 || offset % 2 != 0)
            {
                Fault("flash-width", "a store of {0} bytes at flash offset 0x{1:x}", size, at);
            }
            else if(IsProtected(offset))
            {
                status |= StatusProtected;
                Fault("flash-protected", "0x{0:x} at flash offset 0x{1:x}, which is protected", value, at);
            }
            else if(value != 0 && !region.IsBlank(offset, 2)) // only 0 may be programmed over others
            {
                status |= StatusDirty;
                Fault("flash-dirty", "programmed 0x{0:x} at flash offset 0x{1:x} without an erase", value, at);
            }
            else
            {
                Begin(region, offset, 2, Bytes(value, 2), ProgramTime);
            }
            Show();
        }

        private void TakeControl(uint value)
        {
            if((control & ControlLock) != 0)
            {
                if((value & ControlCommands) != 0)
                {
                    Fault("flash-locked", "0x{0:x} for the control register while the flash is locked", value);
                }
                return;
            }
            if(IsUnderWay && (value & ControlStart) != 0)
            {
                Fault("flash-busy", "0x{0:x} for the control register during another operation", value);
                return;
            }
            control = value & ControlWritable;
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
            uint offset;
            if((control & ControlErase) != 0)
            {
                var region = Find(address, out offset);
                if(region == null || region.First != 0)
                {
                    Fault("flash-command", "there is no page at 0x{0:x}", address);
                }
                else if(IsProtected(offset))
                {
                    status |= StatusProtected;
                    Fault("flash-protected", "the page at 0x{0:x} is protected", address);
                }
                else
                {
                    Begin(region, offset / pageSize * pageSize, pageSize, null, EraseTime);
                }
            }
            else if((control & ControlMassErase) != 0)
            {
                var main = Find(Main, out offset);
                Begin(main, 0, (uint)main.Size, null, MassEraseTime);
            }
            else
            {
                Fault("flash-command", "nothing is to be started: control is 0x{0:x}", control);
            }
        }

        // A bit of WRPR protects some pages, its last one all that are left (PM0075, 2.5).
        private bool IsProtected(uint offset)
        {
            var bit = offset / pageSize / protectedPages;
            return (Protection >> (int)(bit < 31 ? bit : 31) & 1) == 0;
        }

        private uint Protection
        {
            get
            {
                uint first, value = 0;
                var options = Find(Options, out first);
                for(var i = 0; i < 4; i++)
                {
                    value |= (uint)options.Cells[8 + 2 * i] << 8 * i;
                }
                return value;
            }
        }

        private void Show()
        {
            IRQ.Set(((status & StatusDone) != 0 && (control & 1u << 12) != 0)
                || ((status & StatusErrors) != 0 && (control & 1u << 10) != 0));
        }

        private uint access;
        private uint status;
        private uint control;
        private uint address;
        private int keys; // how many of the two have come
        private readonly uint pageSize;
        private readonly uint protectedPages;

        private const uint Main = 0x08000000;
        private const uint Options = 0x1FFFF800;

        private const uint StatusBusy = 1u << 0;
        private const uint StatusDirty = 1u << 2;
        private const uint StatusProtected = 1u << 4;
        private const uint StatusDone = 1u << 5;
        private const uint StatusErrors = StatusDirty | StatusProtected;
        private const uint ControlProgram = 1u << 0;
        private const uint ControlErase = 1u << 1;
        private const uint ControlMassErase = 1u << 2;
        private const uint ControlStart = 1u << 6;
        private const uint ControlLock = 1u << 7;
        private const uint ControlCommands = 0x77;
        private const uint ControlWritable = 0x14B7; // all that is known, but for the start

        private const long AccessControl = 0x00;
        private const long Key = 0x04;
        private const long Status = 0x0C;
        private const long Control = 0x10;
        private const long Address = 0x14;
        private const long OptionBytes = 0x1C;
        private const long WriteProtection = 0x20;
    }
}
