// One Micron StrataFlash P30-65nm chip of 16 bits: commands, status, locks, time, and what is left
// when the power is lost in the middle of an operation. NorFlash.cs puts two side by side. The same
// in C is harness/unbrick/engine/inprocess/c/p30.c. Source: the data sheet (256 Mb to 512 Mb, rev. D).

using System;
using System.Linq;

namespace Antmicro.Renode.Peripherals.Unbrick
{
    // What a chip needs of the pair: its cells, by chip and word address, and somebody to tell.
    public interface INorPair
    {
        ushort Cell(int chip, uint word);

        void SetCell(int chip, uint word, ushort value);

        void CellsChanged();

        void Fault(string kind, string format, params object[] arguments);
    }

    // What a chip's write state machine is doing, or has suspended.
    public class NorJob
    {
        public FlashOperation Kind;
        public uint Word; // chip word address of the first word
        public uint Count;
        public ulong Start;
        public ulong End;
        public ulong Left;
        public uint Serial;
        public ushort[] Data = new ushort[NorChip.BufferWords];
        public bool[] Given = new bool[NorChip.BufferWords];
        public bool Fails; // it comes half way
        public bool Silent; // and no error bit tells it
        public bool Spoils; // and clears the word at which it ends
    }

    public class NorChip
    {
        // Of the pair, in bytes.
        public const uint Block = 256 * 1024;
        public const uint Total = 64 * 1024 * 1024;
        public const uint Modelled = 4 * 1024 * 1024;

        public const uint BufferWords = 512;

        public NorChip(INorPair pair, int number)
        {
            this.pair = pair;
            this.number = number;
            PowerUp();
        }

        public NorJob Job { get; private set; }

        public bool Hides
        {
            get { return output != Output.Array || Job.Kind != FlashOperation.None; }
        }

        public void PowerOff(ulong now)
        {
            if(Job.Kind != FlashOperation.None)
            {
                Tear(Job, now);
            }
            if(suspended != null)
            {
                var total = suspended.End - suspended.Start;
                suspended.Start = now - (total - Math.Min(total, suspended.Left));
                suspended.End = suspended.Start + total;
                Tear(suspended, now);
            }
            PowerUp();
        }

        public void Settle(ulong now)
        {
            if(Job.Kind != FlashOperation.None && now >= Job.End)
            {
                CarryOut(Job);
            }
        }

        public ushort Read(uint word, ulong now)
        {
            Settle(now);
            if(Job.Kind != FlashOperation.None)
            {
                return status;
            }
            switch(output)
            {
            case Output.Status:
                return status;
            case Output.Identity:
                return Identity(word);
            case Output.Query:
                return Query(word);
            default:
                return pair.Cell(number, word);
            }
        }

        // Would this write make the chip begin to change its cells?
        public bool Begins(uint word, ushort value)
        {
            if(Job.Kind != FlashOperation.None)
            {
                return false;
            }
            if(step == Step.Confirm)
            {
                word = Job.Word; // a buffer goes to where it was filled for
            }
            var open = locks[BlockOf(word)] == Open && IsModelled(word) && !InSuspendedBlock(word);
            switch(step)
            {
            case Step.Word:
                return open;
            case Step.Erase:
                return (value & 0xFF) == 0xD0 && open;
            case Step.Confirm:
                return (value & 0xFF) == 0xD0 && BufferIsSound() && open;
            default:
                return false;
            }
        }

        public void Write(uint word, ushort value, ulong now, uint serial)
        {
            var command = value & 0xFF;
            Settle(now);
            this.now = now;
            if(Job.Kind != FlashOperation.None)
            {
                if(command == 0xB0)
                {
                    Suspend();
                }
                else if(command != 0x70)
                {
                    Complain("command", word, value);
                }
                return;
            }
            var current = step;
            step = Step.Ready;
            switch(current)
            {
            case Step.Ready:
                Command(word, value);
                break;
            case Step.Lock:
                Lock(word, value);
                break;
            case Step.Erase:
                if(command != 0xD0)
                {
                    Refuse("command", word, SequenceError);
                }
                else if(MayChange(word, EraseError))
                {
                    WholeBlock(word);
                    Begin(FlashOperation.Erase, EraseTime, serial);
                }
                break;
            case Step.Blank:
                if(command != 0xD0 || !IsModelled(word))
                {
                    Refuse("command", word, SequenceError);
                }
                else
                {
                    WholeBlock(word);
                    Begin(FlashOperation.BlankCheck, BlankTime, serial);
                }
                break;
            case Step.Protection:
                Refuse("command", word, ProgramError | Locked);
                break;
            case Step.Word:
                if(MayChange(word, ProgramError))
                {
                    Job.Word = word;
                    Job.Count = 1;
                    Job.Data[0] = value;
                    Job.Given[0] = true;
                    CheckBits();
                    Begin(FlashOperation.Word, WordTime, serial);
                }
                break;
            case Step.Count:
                if(value >= BufferWords)
                {
                    Refuse("command", word, SequenceError);
                    break;
                }
                Job.Count = todo = (uint)value + 1;
                sized = false;
                Array.Clear(Job.Given, 0, Job.Given.Length);
                step = Step.Data;
                break;
            case Step.Data:
                step = Step.Data;
                BufferWord(word, value);
                break;
            case Step.Confirm:
                if(command != 0xD0 || !BufferIsSound())
                {
                    Refuse("command", word, SequenceError);
                }
                else if(MayChange(Job.Word, ProgramError))
                {
                    CheckBits();
                    Begin(FlashOperation.Buffer, BufferTime(Job.Count), serial);
                }
                break;
            }
        }

        private void PowerUp()
        {
            output = Output.Array;
            step = Step.Ready;
            status = Ready;
            configuration = 0xBFCF;
            Job = new NorJob();
            suspended = null;
            locks = Enumerable.Repeat(Closed, (int)(Total / Block)).ToArray();
        }

        private void Command(uint word, ushort value)
        {
            block = BlockOf(word);
            switch(value & 0xFF)
            {
            case 0xFF:
                output = Output.Array;
                break;
            case 0x70:
                output = Output.Status;
                break;
            case 0x90:
                output = Output.Identity;
                break;
            case 0x98:
                output = Output.Query;
                break;
            case 0x50:
                status &= Ready | EraseSuspended | ProgramSuspended;
                break;
            case 0xB0:
                break;
            case 0xD0:
                Resume();
                break;
            case 0x10:
            case 0x40:
            case 0xE8: // while a program is suspended no other can begin
                if(suspended != null && suspended.Kind != FlashOperation.Erase)
                {
                    Refuse("command", word, SequenceError);
                }
                else
                {
                    step = (value & 0xFF) == 0xE8 ? Step.Count : Step.Word;
                }
                output = Output.Status;
                break;
            case 0x60:
                step = Step.Lock;
                output = Output.Status;
                break;
            case 0x20:
                if(suspended != null)
                {
                    Refuse("command", word, SequenceError);
                }
                else
                {
                    step = Step.Erase;
                }
                output = Output.Status;
                break;
            case 0xBC:
                step = Step.Blank;
                output = Output.Status;
                break;
            case 0xC0:
                step = Step.Protection;
                output = Output.Status;
                break;
            default: // no such command: no effect
                Complain("command", word, value);
                break;
            }
        }

        private void Lock(uint word, ushort value)
        {
            var number = BlockOf(word);
            switch(value & 0xFF)
            {
            case 0x01:
                if(locks[number] == Open)
                {
                    locks[number] = Closed;
                }
                break;
            case 0xD0:
                if((locks[number] & Down) != 0) // WP# is low: until the next power-up
                {
                    Complain("locked", word, value);
                }
                else
                {
                    locks[number] = Open;
                }
                break;
            case 0x2F:
                locks[number] = (byte)(Down | Closed);
                break;
            case 0x03:
                configuration = (ushort)word;
                output = Output.Array;
                break;
            default:
                Refuse("command", word, SequenceError);
                break;
            }
        }

        // The first data word says where the buffer starts.
        private void BufferWord(uint word, ushort value)
        {
            if(!sized)
            {
                Job.Word = word;
                sized = true;
            }
            if(word - Job.Word < Job.Count)
            {
                Job.Data[word - Job.Word] = value;
                Job.Given[word - Job.Word] = true;
            }
            else
            {
                block = uint.MaxValue; // outside the announced range: the confirm will be refused
            }
            if(--todo == 0)
            {
                step = Step.Confirm;
            }
        }

        private bool BufferIsSound()
        {
            var last = Job.Word + Job.Count - 1;
            return block != uint.MaxValue && BlockOf(Job.Word) == block
                && Job.Word / BufferWords == last / BufferWords;
        }

        private void WholeBlock(uint word)
        {
            Job.Word = word & ~(BlockWords - 1);
            Job.Count = BlockWords;
        }

        private void Begin(FlashOperation kind, ulong time, uint serial)
        {
            Job.Kind = kind;
            Job.Start = now;
            Job.End = now + time;
            Job.Serial = serial;
            Job.Fails = Job.Silent = Job.Spoils = false;
            status &= unchecked((byte)~Ready);
        }

        private void Suspend()
        {
            if(Job.Kind == FlashOperation.BlankCheck || suspended != null)
            {
                return;
            }
            suspended = Job;
            suspended.Left = Job.End - now + SuspendTime;
            Job = new NorJob();
            status |= (byte)(Ready | (suspended.Kind == FlashOperation.Erase ? EraseSuspended : ProgramSuspended));
            output = Output.Status;
        }

        private void Resume()
        {
            if(suspended == null)
            {
                return;
            }
            Job = suspended;
            suspended = null;
            Job.Start = now - (Job.End - Job.Start - Job.Left);
            Job.End = now + Job.Left;
            status &= unchecked((byte)~(Ready | EraseSuspended | ProgramSuspended));
            output = Output.Status;
        }

        private bool InSuspendedBlock(uint word)
        {
            return suspended != null && suspended.Kind == FlashOperation.Erase
                && BlockOf(suspended.Word) == BlockOf(word);
        }

        // Does the block take programs and erases, and is it one the model keeps?
        private bool MayChange(uint word, int error)
        {
            if(locks[BlockOf(word)] != Open)
            {
                Refuse("locked", word, error | Locked);
                return false;
            }
            if(!IsModelled(word))
            {
                Refuse("bounds", word, error);
                return false;
            }
            if(InSuspendedBlock(word))
            {
                Refuse("command", word, error);
                return false;
            }
            return true;
        }

        private void CheckBits()
        {
            for(var i = 0u; i < Job.Count; i++)
            {
                if(!Job.Given[i])
                {
                    continue;
                }
                var old = pair.Cell(number, Job.Word + i);
                var data = Job.Data[i];
                for(var shift = 0; shift < 16; shift += 8) // a byte of 0xFF asks for no change
                {
                    var o = (old >> shift) & 0xFF;
                    var d = (data >> shift) & 0xFF;
                    if(d != 0xFF && (d & ~o) != 0)
                    {
                        pair.Fault("program-set-bit",
                            "programmed 0x{0:x4} over 0x{1:x4} at 0x{2:x} without an erase",
                            data, old, (Job.Word + i) * 4 + (uint)number * 2);
                        return;
                    }
                }
            }
        }

        private void CarryOut(NorJob job)
        {
            // One that fails has come half way. The bit that says so stays until it is cleared.
            var done = job.Fails ? job.Count / 2 : job.Count;
            for(var i = 0u; i < done; i++)
            {
                if(job.Kind == FlashOperation.Erase)
                {
                    pair.SetCell(number, job.Word + i, 0xFFFF);
                }
                else if(job.Kind == FlashOperation.BlankCheck)
                {
                    if(pair.Cell(number, job.Word + i) != 0xFFFF)
                    {
                        status |= EraseError;
                    }
                }
                else if(job.Given[i])
                {
                    Program(job.Word + i, job.Data[i]);
                }
            }
            if(job.Fails && job.Spoils)
            {
                Program(job.Word + done, 0);
            }
            if(job.Fails && !job.Silent)
            {
                status |= job.Kind == FlashOperation.Erase ? EraseError : ProgramError;
            }
            job.Kind = FlashOperation.None;
            status |= Ready;
            pair.CellsChanged();
        }

        // Whether it could be read that only half of the operation that has just begun is carried
        // out.
        public bool HalfShows()
        {
            for(var i = Job.Count / 2; i < Job.Count; i++)
            {
                var old = pair.Cell(number, Job.Word + i);
                if(Job.Kind == FlashOperation.Erase ? old != 0xFFFF : Job.Given[i] && (old & ~Job.Data[i]) != 0)
                {
                    return true;
                }
            }
            return false;
        }

        // Power was lost in the middle: words before `done` are programmed, one has some of its
        // bits, the rest none; an erase has moved a share of the bits to one.
        private void Tear(NorJob job, ulong at)
        {
            var total = job.End - job.Start;
            var spent = at > job.Start ? at - job.Start : 0;
            if(spent >= total)
            {
                CarryOut(job);
                return;
            }
            var seed = job.Serial * 2 + (uint)number;
            if(job.Kind == FlashOperation.Erase)
            {
                var share = (uint)(spent * 256 / total);
                for(var i = 0u; i < job.Count; i++)
                {
                    var ones = 0;
                    for(var bit = 0; bit < 16; bit++)
                    {
                        if((Mix(seed, i * 16 + (uint)bit) & 0xFF) < share)
                        {
                            ones |= 1 << bit;
                        }
                    }
                    pair.SetCell(number, job.Word + i, (ushort)(pair.Cell(number, job.Word + i) | ones));
                }
            }
            else if(job.Kind != FlashOperation.BlankCheck)
            {
                var done = (uint)(spent * job.Count / total);
                for(var i = 0u; i <= done && i < job.Count; i++)
                {
                    var keep = i < done ? 0 : Mix(seed, i);
                    if(job.Given[i])
                    {
                        Program(job.Word + i, (ushort)(job.Data[i] | keep));
                    }
                }
            }
            job.Kind = FlashOperation.None;
            pair.CellsChanged();
        }

        private void Program(uint word, ushort data)
        {
            pair.SetCell(number, word, (ushort)(pair.Cell(number, word) & data));
        }

        private ushort Query(uint word)
        {
            word &= 0x1FF;
            if(word >= 0x10 && word - 0x10 < QueryTable.Length)
            {
                return QueryTable[word - 0x10];
            }
            return word >= 0x10A && word - 0x10A < Extended.Length ? (ushort)Extended[(int)word - 0x10A] : (ushort)0;
        }

        private ushort Identity(uint word)
        {
            switch(word & (BlockWords - 1))
            {
            case 0x00:
                return 0x0089;
            case 0x01:
                return 0x891C;
            case 0x02:
                return locks[BlockOf(word)];
            case 0x05:
                return configuration;
            default:
                return 0xFFFF;
            }
        }

        private void Refuse(string kind, uint word, int bits)
        {
            status |= (byte)(bits | Ready);
            Complain(kind, word, (ushort)bits);
        }

        private void Complain(string kind, uint word, ushort value)
        {
            var format = kind == "locked" ? "program or erase of the locked block at 0x{0:x}"
                : kind == "bounds" ? "access to 0x{0:x}, which is not there"
                : "the NOR refused 0x{1:x} at 0x{0:x}";
            pair.Fault(kind, format, word * 4, value);
        }

        private static uint BlockOf(uint word)
        {
            return word / BlockWords % (Total / Block);
        }

        private static bool IsModelled(uint word)
        {
            return word < Modelled / 4;
        }

        private static ulong BufferTime(uint words)
        {
            return words <= 64 ? 310000u : words <= 128 ? 375000u : words <= 256 ? 505000u : 900000u;
        }

        // Which cells of a torn operation changed depends on nothing else.
        private static uint Mix(uint a, uint b)
        {
            unchecked
            {
                var x = a * 0x9E3779B1u ^ b * 0x85EBCA77u;
                x ^= x >> 15;
                x *= 0x2C1B3C6Du;
                x ^= x >> 12;
                x *= 0x297A2D39u;
                return x ^ x >> 15;
            }
        }

        private Output output;
        private Step step;
        private byte status;
        private byte[] locks;
        private ushort configuration;
        private uint block; // of the command under way
        private uint todo;
        private bool sized;
        private NorJob suspended;
        private ulong now;

        private readonly INorPair pair;
        private readonly int number;

        // From address 0x10 on.
        private static readonly byte[] QueryTable =
        {
            0x51, 0x52, 0x59, 0x01, 0x00, 0x0A, 0x01, 0x00, 0x00, 0x00, 0x00, 0x17, 0x20, 0x85, 0x95, 0x08,
            0x09, 0x09, 0x00, 0x02, 0x03, 0x03, 0x00, 0x19, 0x01, 0x00, 0x0A, 0x00, 0x01, 0xFF, 0x00, 0x00,
            0x02
        };

        private const string Extended = "PRI15";
        private const uint BlockWords = Block / 4;

        // Typical times, table "Program and Erase Characteristics", in nanoseconds.
        private const ulong WordTime = 270000;
        private const ulong EraseTime = 500000000;
        private const ulong BlankTime = 3200000;
        private const ulong SuspendTime = 25000;

        private const byte Ready = 0x80;
        private const byte EraseSuspended = 0x40;
        private const byte EraseError = 0x20;
        private const byte ProgramError = 0x10;
        private const byte ProgramSuspended = 0x04;
        private const byte Locked = 0x02;
        private const byte SequenceError = EraseError | ProgramError;

        private const byte Open = 0;
        private const byte Closed = 1;
        private const byte Down = 2;

        private enum Output
        {
            Array,
            Status,
            Identity,
            Query
        }

        private enum Step
        {
            Ready,
            Erase,
            Word,
            Count,
            Data,
            Confirm,
            Lock,
            Blank,
            Protection
        }
    }
}
