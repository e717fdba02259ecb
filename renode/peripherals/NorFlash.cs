// The terminal's NOR for Renode: two Micron StrataFlash P30-65nm chips of 16 bits, side by side on a
// 32-bit bus, as harness/unbrick/engine/devices.c models them for the in-process engine; the two
// are compared by tests/test_engine_renode.py. Source: the data sheet (256 Mb to 512 Mb, rev. D).
//
// Register it at two places, with the regions "array" (read and executed in place) and "window"
// (commands). Errors of the firmware are warnings in Renode's log and are kept for Faults().

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;

using Antmicro.Renode.Core;
using Antmicro.Renode.Exceptions;
using Antmicro.Renode.Logging;
using Antmicro.Renode.Peripherals.Bus;
using Antmicro.Renode.Peripherals.CPU;
using Antmicro.Renode.Utilities;

namespace Antmicro.Renode.Peripherals.Unbrick
{
    public enum NorOperation
    {
        None,
        Word,
        Buffer,
        Erase,
        BlankCheck
    }

    // One operation of the pair. Offset and length in bytes, times in nanoseconds of virtual time;
    // lanes: bit 0 the low chip, bit 1 the high one.
    public class NorTraceEntry
    {
        public NorOperation Kind;
        public int Lanes;
        public uint Offset;
        public uint Length;
        public ulong Start;
        public ulong End;
        public byte[] Data; // what was to be programmed, 0xFF where nothing was given
    }

    public class NorFault
    {
        public string Kind;
        public ulong Pc;
        public ulong Time;
        public string Text;
    }

    // Not to be saved: a snapshot cannot hold peripherals that are compiled when they are loaded.
    public class NorFlash : IBytePeripheral, IWordPeripheral, IDoubleWordPeripheral, IKnownSize
    {
        public const uint Block = 256 * 1024;
        public const uint Total = 64 * 1024 * 1024;
        public const uint Modelled = 4 * 1024 * 1024;

        public NorFlash(IMachine machine)
        {
            this.machine = machine;
            Cells = Enumerable.Repeat((byte)0xFF, (int)Modelled).ToArray();
            chips = new[] { new NorChip(this, 0), new NorChip(this, 1) };
        }

        public long Size
        {
            get { return Total; }
        }

        public byte[] Cells { get; private set; }

        // Counts up whenever cells change.
        public ulong Generation { get; private set; }

        // Power is cut just before this operation, counted from 0: it does not begin and the CPU
        // is halted. PowerOff, then machine Reset, is a new start.
        public ulong CutBefore { get; set; } = ulong.MaxValue;

        public bool CutReached { get; private set; }

        public int OperationCount
        {
            get { return trace.Count; }
        }

        public int FaultCount { get; private set; }

        // Power goes, now: what is under way is torn. The cells stay.
        public void PowerOff()
        {
            var now = Now();
            foreach(var chip in chips)
            {
                chip.PowerOff(now);
            }
            CutReached = false;
        }

        // A reset of the board, or power that comes back.
        public void Reset()
        {
            PowerOff();
            hidden = stopped = false;
        }

        // Begin to count anew: no operation and no fault so far.
        public void Forget()
        {
            trace.Clear();
            faults.Clear();
            FaultCount = 0;
        }

        public void Load(ReadFilePath path)
        {
            SetCells(File.ReadAllBytes(path));
        }

        public void Save(WriteFilePath path)
        {
            Settle();
            File.WriteAllBytes(path, Cells);
        }

        public void SetCells(byte[] image)
        {
            if(image.Length > Modelled)
            {
                throw new RecoverableException(string.Format(
                    "the image has {0} bytes, the model {1}", image.Length, Modelled));
            }
            for(var i = 0; i < Cells.Length; i++)
            {
                Cells[i] = i < image.Length ? image[i] : (byte)0xFF;
            }
            Generation++;
            ForgetCode();
        }

        // Carry out what has come to its end.
        public void Settle()
        {
            var now = Now();
            foreach(var chip in chips)
            {
                chip.Settle(now);
            }
        }

        // Every operation so far, as a table for the monitor.
        public string[,] Trace()
        {
            var table = new string[trace.Count + 1, 5];
            var titles = new[] { "#", "operation", "offset", "length", "at (ms)" };
            for(var column = 0; column < 5; column++)
            {
                table[0, column] = titles[column];
            }
            for(var i = 0; i < trace.Count; i++)
            {
                table[i + 1, 0] = i.ToString();
                table[i + 1, 1] = trace[i].Kind.ToString();
                table[i + 1, 2] = string.Format("0x{0:x6}", trace[i].Offset);
                table[i + 1, 3] = trace[i].Length.ToString();
                table[i + 1, 4] = string.Format("{0:0.000}", trace[i].Start / 1e6);
            }
            return table;
        }

        public IList<NorTraceEntry> Operations
        {
            get { return trace; }
        }

        // The first 64 faults.
        public IList<NorFault> FaultList
        {
            get { return faults; }
        }

        // The errors of the firmware, as a table for the monitor.
        public string[,] Faults()
        {
            var table = new string[faults.Count + 1, 3];
            table[0, 0] = "kind";
            table[0, 1] = "pc";
            table[0, 2] = "what";
            for(var i = 0; i < faults.Count; i++)
            {
                table[i + 1, 0] = faults[i].Kind;
                table[i + 1, 1] = string.Format("0x{0:x}", faults[i].Pc);
                table[i + 1, 2] = faults[i].Text;
            }
            return table;
        }

        [ConnectionRegion("array")]
        public uint ReadDoubleWordFromArray(long offset)
        {
            return ReadArray((uint)offset, 4);
        }

        [ConnectionRegion("array")]
        public ushort ReadWordFromArray(long offset)
        {
            return (ushort)ReadArray((uint)offset, 2);
        }

        [ConnectionRegion("array")]
        public byte ReadByteFromArray(long offset)
        {
            return (byte)ReadArray((uint)offset, 1);
        }

        [ConnectionRegion("array")]
        public void WriteDoubleWordToArray(long offset, uint value)
        {
            WriteArray((uint)offset, value);
        }

        [ConnectionRegion("array")]
        public void WriteWordToArray(long offset, ushort value)
        {
            WriteArray((uint)offset, value);
        }

        [ConnectionRegion("array")]
        public void WriteByteToArray(long offset, byte value)
        {
            WriteArray((uint)offset, value);
        }

        [ConnectionRegion("window")]
        public uint ReadDoubleWord(long offset)
        {
            return Read((uint)offset, 4);
        }

        [ConnectionRegion("window")]
        public ushort ReadWord(long offset)
        {
            return (ushort)Read((uint)offset, 2);
        }

        [ConnectionRegion("window")]
        public byte ReadByte(long offset)
        {
            return (byte)Read((uint)offset, 1);
        }

        [ConnectionRegion("window")]
        public void WriteDoubleWord(long offset, uint value)
        {
            Write((uint)offset, 4, value);
        }

        [ConnectionRegion("window")]
        public void WriteWord(long offset, ushort value)
        {
            Write((uint)offset, 2, value);
        }

        [ConnectionRegion("window")]
        public void WriteByte(long offset, byte value)
        {
            Write((uint)offset, 1, value);
        }

        // What a host without a CPU adds to the time, in nanoseconds: only tests of the chip do.
        public ulong Elapsed { get; set; }

        internal void Fault(string kind, string format, params object[] arguments)
        {
            FaultCount++;
            if(faults.Count < FaultsKept)
            {
                var text = string.Format(format, arguments);
                this.Log(LogLevel.Warning, "{0}: {1}", kind, text);
                faults.Add(new NorFault { Kind = kind, Pc = Pc(), Time = Now(), Text = text });
            }
        }

        internal void CellsChanged()
        {
            Generation++;
        }

        internal ushort Cell(int chip, uint word)
        {
            var at = word * 4 + (uint)chip * 2;
            return at + 1 < Modelled ? (ushort)(Cells[at] | Cells[at + 1] << 8) : (ushort)0xFFFF;
        }

        internal void SetCell(int chip, uint word, ushort value)
        {
            var at = word * 4 + (uint)chip * 2;
            Cells[at] = (byte)value;
            Cells[at + 1] = (byte)(value >> 8);
        }

        private uint ReadArray(uint offset, int size)
        {
            if(!hidden || !Hidden())
            {
                return Part(ArrayWord(offset / 4), offset, size);
            }
            if(!stopped)
            {
                Busy(offset);
            }
            return Read(offset, size);
        }

        // The firmware cannot go on from here.
        private void Busy(ulong address)
        {
            var fetched = Pc() < Total;
            Fault(fetched ? "busy-fetch" : "busy-read", "{0} the NOR at 0x{1:x} while it was not in read-array mode",
                fetched ? "executed from" : "read", address);
            Stop();
        }

        private void WriteArray(uint offset, uint value)
        {
            Fault("bounds", "write of 0x{1:x} to 0x{0:x}, outside the command window", offset, value);
        }

        private uint Read(uint offset, int size)
        {
            if(!hidden)
            {
                return Part(ArrayWord(offset / 4), offset, size);
            }
            var now = Now();
            var word = offset / 4;
            var value = (uint)(chips[0].Read(word, now) | chips[1].Read(word, now) << 16);
            return Part(value, offset, size);
        }

        private void Write(uint offset, int size, uint value)
        {
            if(stopped)
            {
                return;
            }
            if(size == 1 || offset % size != 0)
            {
                Fault("command", "the NOR refused 0x{1:x} at 0x{0:x}", offset, value);
                return;
            }
            var now = Now();
            var word = offset / 4;
            var lanes = size == 4 ? 3 : (offset & 2) != 0 ? 2 : 1;
            if(lanes == 2)
            {
                value <<= 16;
            }
            var halves = new[] { (ushort)value, (ushort)(value >> 16) };
            var starting = 0;
            for(var i = 0; i < 2; i++)
            {
                chips[i].Settle(now);
                if((lanes & 1 << i) != 0 && chips[i].Begins(word, halves[i]))
                {
                    starting |= 1 << i;
                }
            }
            if(starting != 0 && (ulong)trace.Count == CutBefore)
            {
                Cut();
                return;
            }
            for(var i = 0; i < 2; i++)
            {
                if((lanes & 1 << i) != 0)
                {
                    chips[i].Write(word, halves[i], now, (uint)trace.Count);
                }
            }
            if(starting != 0)
            {
                Record(starting);
            }
            Look();
        }

        private void Cut()
        {
            CutReached = true;
            Stop();
        }

        private void Stop()
        {
            stopped = true;
            ICPU cpu;
            if(machine.SystemBus.TryGetCurrentCPU(out cpu))
            {
                ((IControllableCPU)cpu).IsHalted = true;
            }
        }

        private void Record(int lanes)
        {
            var job = chips[(lanes & 1) != 0 ? 0 : 1].Job;
            var entry = new NorTraceEntry
            {
                Kind = job.Kind,
                Lanes = lanes,
                Offset = job.Word * 4,
                Length = job.Count * 4,
                Start = job.Start,
                End = job.End,
                Data = new byte[0]
            };
            if(job.Kind != NorOperation.Erase)
            {
                entry.Data = Enumerable.Repeat((byte)0xFF, (int)entry.Length).ToArray();
                for(var chip = 0; chip < 2; chip++)
                {
                    var part = chips[chip].Job;
                    for(var i = 0; (lanes & 1 << chip) != 0 && i < part.Count; i++)
                    {
                        if(part.Given[i])
                        {
                            entry.Data[i * 4 + chip * 2] = (byte)part.Data[i];
                            entry.Data[i * 4 + chip * 2 + 1] = (byte)(part.Data[i] >> 8);
                        }
                    }
                }
            }
            trace.Add(entry);
        }

        // Does a chip answer with something else than its array? Code that the CPU has translated
        // from the NOR is forgotten when the array comes back: it may have been rewritten.
        private void Look()
        {
            var hide = Hidden();
            if(hide == hidden)
            {
                return;
            }
            hidden = hide;
            if(hide)
            {
                seen = Generation;
                if(Pc() < Total)
                {
                    Busy(Pc());
                }
            }
            else if(seen != Generation)
            {
                ForgetCode();
            }
        }

        private bool Hidden()
        {
            return chips[0].Hides || chips[1].Hides;
        }

        private void ForgetCode()
        {
            foreach(var cpu in machine.SystemBus.GetCPUs().OfType<TranslationCPU>())
            {
                cpu.ClearTranslationCache();
            }
        }

        private uint ArrayWord(uint word)
        {
            return (uint)(Cell(0, word) | Cell(1, word) << 16);
        }

        private static uint Part(uint value, uint offset, int size)
        {
            value >>= 8 * (int)(offset & 3);
            return size == 4 ? value : value & ((1u << 8 * size) - 1);
        }

        private ulong Now()
        {
            ICPU cpu;
            if(machine.SystemBus.TryGetCurrentCPU(out cpu))
            {
                cpu.SyncTime();
            }
            return (ulong)(machine.ElapsedVirtualTime.TimeElapsed.TotalSeconds * 1e9) + Elapsed;
        }

        // Of the basic block under way; beyond the address space when no CPU is at work.
        private ulong Pc()
        {
            ICPU cpu;
            return machine.SystemBus.TryGetCurrentCPU(out cpu) ? cpu.PC.RawValue : ulong.MaxValue;
        }

        private bool hidden;
        private bool stopped; // by a cut or by a fault, until the next reset
        private ulong seen;
        private readonly IMachine machine;
        private readonly NorChip[] chips;
        private readonly List<NorTraceEntry> trace = new List<NorTraceEntry>();
        private readonly List<NorFault> faults = new List<NorFault>();

        private const int FaultsKept = 64;
    }

    // What a chip's write state machine is doing, or has suspended.
    internal class NorJob
    {
        public NorOperation Kind;
        public uint Word; // chip word address of the first word
        public uint Count;
        public ulong Start;
        public ulong End;
        public ulong Left;
        public uint Serial;
        public ushort[] Data = new ushort[NorChip.BufferWords];
        public bool[] Given = new bool[NorChip.BufferWords];
    }

    internal class NorChip
    {
        public const uint BufferWords = 512;

        public NorChip(NorFlash pair, int number)
        {
            this.pair = pair;
            this.number = number;
            PowerUp();
        }

        public NorJob Job { get; private set; }

        public bool Hides
        {
            get { return output != Output.Array || Job.Kind != NorOperation.None; }
        }

        public void PowerOff(ulong now)
        {
            if(Job.Kind != NorOperation.None)
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
            if(Job.Kind != NorOperation.None && now >= Job.End)
            {
                CarryOut(Job);
            }
        }

        public ushort Read(uint word, ulong now)
        {
            Settle(now);
            if(Job.Kind != NorOperation.None)
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
            if(Job.Kind != NorOperation.None)
            {
                return false;
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
            if(Job.Kind != NorOperation.None)
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
                    Begin(NorOperation.Erase, EraseTime, serial);
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
                    Begin(NorOperation.BlankCheck, BlankTime, serial);
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
                    Begin(NorOperation.Word, WordTime, serial);
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
                    Begin(NorOperation.Buffer, BufferTime(Job.Count), serial);
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
            locks = Enumerable.Repeat(Closed, (int)(NorFlash.Total / NorFlash.Block)).ToArray();
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
                if(suspended != null && suspended.Kind != NorOperation.Erase)
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

        private void Begin(NorOperation kind, ulong time, uint serial)
        {
            Job.Kind = kind;
            Job.Start = now;
            Job.End = now + time;
            Job.Serial = serial;
            status &= unchecked((byte)~Ready);
        }

        private void Suspend()
        {
            if(Job.Kind == NorOperation.BlankCheck || suspended != null)
            {
                return;
            }
            suspended = Job;
            suspended.Left = Job.End - now + SuspendTime;
            Job = new NorJob();
            status |= (byte)(Ready | (suspended.Kind == NorOperation.Erase ? EraseSuspended : ProgramSuspended));
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
            return suspended != null && suspended.Kind == NorOperation.Erase
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
            for(var i = 0u; i < job.Count; i++)
            {
                if(job.Kind == NorOperation.Erase)
                {
                    pair.SetCell(number, job.Word + i, 0xFFFF);
                }
                else if(job.Kind == NorOperation.BlankCheck)
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
            job.Kind = NorOperation.None;
            status |= Ready;
            pair.CellsChanged();
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
            if(job.Kind == NorOperation.Erase)
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
            else if(job.Kind != NorOperation.BlankCheck)
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
            job.Kind = NorOperation.None;
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
            return word / BlockWords % (NorFlash.Total / NorFlash.Block);
        }

        private static bool IsModelled(uint word)
        {
            return word < NorFlash.Modelled / 4;
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

        private readonly NorFlash pair;
        private readonly int number;

        // From address 0x10 on.
        private static readonly byte[] QueryTable =
        {
            0x51, 0x52, 0x59, 0x01, 0x00, 0x0A, 0x01, 0x00, 0x00, 0x00, 0x00, 0x17, 0x20, 0x85, 0x95, 0x08,
            0x09, 0x09, 0x00, 0x02, 0x03, 0x03, 0x00, 0x19, 0x01, 0x00, 0x0A, 0x00, 0x01, 0xFF, 0x00, 0x00,
            0x02
        };

        private const string Extended = "PRI15";
        private const uint BlockWords = NorFlash.Block / 4;

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
