// NVMC, the flash controller of nRF52: words, pages, UICR. Source: the product specifications. What
// protects pages (BPROT, ACL) is not here.

using System.Collections.Generic;

using Antmicro.Renode.Core;

namespace Antmicro.Renode.Peripherals.Unbrick
{
    public class FlashNrf : ChipFlash
    {
        // Times are in microseconds; wordWrites is how often a word may be written between two erases.
        public FlashNrf(IMachine machine, uint programTime, uint eraseTime, uint massEraseTime, uint pageSize,
            uint wordWrites, bool partialErase = false, bool readyNext = false)
            : base(machine, programTime, eraseTime, massEraseTime)
        {
            this.pageSize = pageSize;
            this.wordWrites = wordWrites;
            this.partialErase = partialErase;
            this.readyNext = readyNext;
            ResetRegisters();
        }

        public override long Size
        {
            get { return 0x800; }
        }

        public override uint ReadDoubleWord(long offset)
        {
            Settle();
            switch(offset)
            {
            case Ready:
                return Busy ? 0u : 1u;
            case ReadyNext: // another program is taken while one is under way
                return readyNext && !(Busy && IsErase) ? 1u : 0u;
            case Config:
                return config;
            case ErasePagePartialConfig:
                return partialTime;
            default:
                return 0;
            }
        }

        public override void WriteDoubleWord(long offset, uint value)
        {
            Settle();
            switch(offset)
            {
            case Config:
                if((value & 3) == 3)
                {
                    Fault("flash-command", "CONFIG takes no {0:x}", value);
                }
                else
                {
                    config = value & 3;
                }
                break;
            case ErasePage:
            case ErasePageOld:
                ErasePageAt(value, false);
                break;
            case ErasePagePartial:
                if(partialErase)
                {
                    ErasePageAt(value, true);
                }
                break;
            case ErasePagePartialConfig:
                partialTime = value & 0x7F;
                break;
            case EraseAll:
                if((value & 1) != 0 && MayErase(value))
                {
                    uint first;
                    var main = Find(0, out first);
                    pageTimes.Clear();
                    writes.Clear();
                    Begin(main, 0, (uint)main.Size, null, MassEraseTime, all: true);
                }
                break;
            case EraseUicr:
                if((value & 1) != 0 && MayErase(value))
                {
                    uint offsetThere;
                    var uicr = Find(Uicr, out offsetThere);
                    Begin(uicr, 0, (uint)uicr.Size, null, EraseTime);
                }
                break;
            }
        }

        protected override void ResetRegisters()
        {
            config = Read;
            partialTime = 10;
        }

        protected override void ForgetPast()
        {
            pageTimes.Clear();
            writes.Clear();
        }

        protected override void TakeStore(FlashRegion region, uint offset, int size, uint value)
        {
            if(config == Read)
            {
                Fault("flash-locked", "{0:x} at flash offset 0x{1:x} while the flash is locked", value, region.First + offset);
            }
            else if(config != Write)
            {
                Fault("flash-stray", "a store of 0x{0:x} at flash offset 0x{1:x} programs nothing", value, region.First + offset);
            }
            else if(IsUnderWay && (IsErase || !readyNext))
            {
                Fault("flash-busy", "0x{0:x} at flash offset 0x{1:x} during another operation", value, region.First + offset);
            }
            else if(size != 4 || offset % 4 != 0)
            {
                Fault("flash-width", "a store of {0} bytes at flash offset 0x{1:x}", size, region.First + offset);
            }
            else
            {
                Count(region, offset);
                Begin(region, offset, 4, Bytes(value, 4), ProgramTime);
            }
        }

        // How often a word was written; what was so before the power came is told by its cells.
        private void Count(FlashRegion region, uint offset)
        {
            if(region.First != 0)
            {
                return;
            }
            uint count;
            if(!writes.TryGetValue(offset, out count))
            {
                count = region.IsBlank(offset, 4) ? 0u : 1u;
            }
            writes[offset] = ++count;
            if(count > wordWrites)
            {
                Fault("flash-worn", "flash offset 0x{0:x} was programmed {1} times without an erase", offset, count);
            }
        }

        private bool MayErase(uint value)
        {
            if(config != Erase)
            {
                Fault("flash-locked", "0x{0:x} while the flash takes no erase", value);
            }
            else if(IsUnderWay)
            {
                Fault("flash-busy", "0x{0:x} during another operation", value);
            }
            else
            {
                return true;
            }
            return false;
        }

        // A page that is erased in parts reads as before until its last part is done.
        private void ErasePageAt(uint address, bool partially)
        {
            if(!MayErase(address))
            {
                return;
            }
            uint offset;
            var region = Find(address, out offset);
            if(region == null || region.First != 0 || offset % pageSize != 0)
            {
                Fault("flash-command", "no page begins at 0x{0:x}", address);
                return;
            }
            var time = EraseTime;
            if(partially)
            {
                uint before;
                pageTimes.TryGetValue(offset, out before);
                time = partialTime * 1000;
                if(before + time < EraseTime)
                {
                    pageTimes[offset] = before + time;
                    return;
                }
            }
            pageTimes.Remove(offset);
            for(var word = offset; word < offset + pageSize; word += 4)
            {
                writes.Remove(word);
            }
            Begin(region, offset, pageSize, null, time);
        }

        private uint config;
        private uint partialTime; // ms
        private readonly uint pageSize;
        private readonly uint wordWrites;
        private readonly bool partialErase;
        private readonly bool readyNext;
        private readonly Dictionary<uint, uint> pageTimes = new Dictionary<uint, uint>(); // us, of pages that are erased in parts
        private readonly Dictionary<uint, uint> writes = new Dictionary<uint, uint>();

        private const uint Read = 0;
        private const uint Write = 1;
        private const uint Erase = 2;
        private const uint Uicr = 0x10001000;

        private const long Ready = 0x400;
        private const long ReadyNext = 0x408;
        private const long Config = 0x504;
        private const long ErasePage = 0x508;
        private const long EraseAll = 0x50C;
        private const long ErasePageOld = 0x510;
        private const long EraseUicr = 0x514;
        private const long ErasePagePartial = 0x518;
        private const long ErasePagePartialConfig = 0x51C;
    }
}
