// The terminal's NOR for Renode: two chips (NorChip.cs) side by side on a 32-bit bus, as
// harness/unbrick/engine/inprocess/c/p30.c models them for the in-process engine;
// tests/test_engine_renode.py compares the two.
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
    // Cells on which operations end with an error, and half done; harness/unbrick/flash/ops.py has
    // the same. Of operations that begin in these bytes so many go well, then so many fail.
    public class NorWorn
    {
        public uint Offset;
        public uint Length;
        public bool Erase; // the erases, or the programs
        public uint Good;
        public uint Bad = uint.MaxValue; // for ever
        public int Lanes = 3;
        public bool Silent; // no error bit tells it; those fail of which it shows
        public bool Spoils; // a program that fails clears the word at which it ends
        public uint Times = 1; // all of them last so many times as long
    }

    // Not to be saved: a snapshot cannot hold peripherals that are compiled when they are loaded.
    public class NorFlash : IBytePeripheral, IWordPeripheral, IDoubleWordPeripheral, IKnownSize, IFlash, INorPair
    {
        public const uint Modelled = NorChip.Modelled;

        public NorFlash(IMachine machine)
        {
            this.machine = machine;
            Cells = Enumerable.Repeat((byte)0xFF, (int)Modelled).ToArray();
            chips = new[] { new NorChip(this, 0), new NorChip(this, 1) };
        }

        public long Size
        {
            get { return NorChip.Total; }
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

        // A reset of the board, or power that comes back. A cut strikes once.
        public void Reset()
        {
            if(CutReached)
            {
                CutBefore = ulong.MaxValue;
            }
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

        // Have operations fail on these cells, too. They stay worn when the power goes.
        public void Wear(NorWorn place)
        {
            worn.Add(place);
        }

        public void WearErases(uint offset, uint length, uint good = 0, uint bad = uint.MaxValue)
        {
            Wear(new NorWorn { Offset = offset, Length = length, Erase = true, Good = good, Bad = bad });
        }

        public void WearPrograms(uint offset, uint length, uint good = 0, uint bad = uint.MaxValue)
        {
            Wear(new NorWorn { Offset = offset, Length = length, Good = good, Bad = bad });
        }

        // No cells are worn any more.
        public void Mend()
        {
            worn.Clear();
        }

        // A string and no ReadFilePath: for that the monitor would not say what is wrong.
        public void Load(string path)
        {
            try
            {
                var size = new FileInfo(path).Length; // it may be far more than fits into memory
                if(size > Modelled)
                {
                    throw TooLarge(size);
                }
                SetCells(File.ReadAllBytes(path));
            }
            catch(Exception e) when(e is IOException || e is UnauthorizedAccessException)
            {
                throw new RecoverableException(string.Format(
                    "The NOR's contents cannot be read from {0}: {1}\n{2}", path, e.Message, HowToMake));
            }
        }

        public void Save(string path)
        {
            Settle();
            try
            {
                File.WriteAllBytes(path, Cells);
            }
            catch(Exception e) when(e is IOException || e is UnauthorizedAccessException)
            {
                throw new RecoverableException(string.Format(
                    "The NOR's contents cannot be written to {0}: {1}\nName a file in a folder that you may write to.",
                    path, e.Message));
            }
        }

        public void SetCells(byte[] image)
        {
            if(image.Length > Modelled)
            {
                throw TooLarge(image.Length);
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

        // The bench's requests that only this flash knows.
        public void Carry(char request, BinaryReader reader, BinaryWriter writer)
        {
            switch(request)
            {
            case 'W':
                WearPlaces(reader);
                break;
            case 'B':
                Batch(reader, writer);
                break;
            default:
                throw new InvalidOperationException("no such request");
            }
        }

        // Every operation so far, as a table for the monitor.
        public string[,] Trace()
        {
            return FlashTables.ListOperations(this);
        }

        public IList<FlashTraceEntry> Operations
        {
            get { return trace; }
        }

        // The first 64 faults.
        public IList<FlashFault> FaultList
        {
            get { return faults; }
        }

        // The errors of the firmware, as a table for the monitor.
        public string[,] Faults()
        {
            return FlashTables.ListFaults(this, machine.SystemBus);
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

        public void Fault(string kind, string format, params object[] arguments)
        {
            FaultCount++;
            if(faults.Count < FaultsKept)
            {
                var text = string.Format(format, arguments);
                this.Log(LogLevel.Warning, "{0}: {1}", kind, text);
                faults.Add(new FlashFault { Kind = kind, Pc = Pc(), Time = Now(), Text = text });
            }
        }

        public void CellsChanged()
        {
            Generation++;
        }

        public ushort Cell(int chip, uint word)
        {
            var at = word * 4 + (uint)chip * 2;
            return at + 1 < Modelled ? (ushort)(Cells[at] | Cells[at + 1] << 8) : (ushort)0xFFFF;
        }

        public void SetCell(int chip, uint word, ushort value)
        {
            var at = word * 4 + (uint)chip * 2;
            Cells[at] = (byte)value;
            Cells[at + 1] = (byte)(value >> 8);
        }

        // These places are worn, and no others.
        private void WearPlaces(BinaryReader reader)
        {
            Mend();
            while(reader.BaseStream.Position < reader.BaseStream.Length)
            {
                Wear(new NorWorn
                {
                    Offset = reader.ReadUInt32(),
                    Length = reader.ReadUInt32(),
                    Good = reader.ReadUInt32(),
                    Bad = reader.ReadUInt32(),
                    Times = reader.ReadUInt32(),
                    Lanes = reader.ReadByte(),
                    Erase = reader.ReadBoolean(),
                    Silent = reader.ReadBoolean(),
                    Spoils = reader.ReadBoolean()
                });
            }
        }

        // The chips alone, without a CPU: reads (0), writes (1), nanoseconds (2), power cycles (3).
        private void Batch(BinaryReader reader, BinaryWriter writer)
        {
            while(reader.BaseStream.Position < reader.BaseStream.Length)
            {
                var what = reader.ReadByte();
                var offset = reader.ReadUInt32();
                var value = reader.ReadUInt64();
                switch(what)
                {
                case 0:
                    writer.Write(ReadDoubleWord(offset));
                    break;
                case 1:
                    WriteDoubleWord(offset, (uint)value);
                    break;
                case 2:
                    Elapsed += value;
                    break;
                default:
                    Reset();
                    break;
                }
            }
        }

        private static RecoverableException TooLarge(long size)
        {
            return new RecoverableException(string.Format(
                "The image has {0} bytes, and the NOR {1}.\n{2}", size, Modelled, HowToMake));
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
            var fetched = Pc() < NorChip.Total;
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

        // The lanes of the operation that has just begun which will end it with an error. One that
        // would fail silently goes well where nobody could see it.
        private int LetFail(int lanes)
        {
            var job = chips[(lanes & 1) != 0 ? 0 : 1].Job;
            var isErase = job.Kind == FlashOperation.Erase;
            var failing = 0;
            var silent = false;
            var spoils = false;
            var times = 1u;
            foreach(var place in worn)
            {
                var inside = job.Word * 4 >= place.Offset && job.Word * 4 - place.Offset < place.Length;
                if(!inside || isErase != place.Erase)
                {
                    continue;
                }
                times = Math.Max(times, place.Times);
                if(place.Good > 0)
                {
                    place.Good--;
                }
                else if(place.Bad > 0 && (!place.Silent || HalfShows(lanes & place.Lanes)))
                {
                    place.Bad -= place.Bad == uint.MaxValue ? 0u : 1u;
                    failing |= place.Lanes & lanes;
                    silent = place.Silent;
                    spoils = place.Spoils && !isErase;
                }
            }
            for(var i = 0; i < 2; i++)
            {
                var part = chips[i].Job;
                if((failing & 1 << i) != 0)
                {
                    part.Fails = true;
                    part.Silent = silent;
                    part.Spoils = spoils;
                }
                if((lanes & 1 << i) != 0)
                {
                    part.End = part.Start + (part.End - part.Start) * times;
                }
            }
            return spoils ? failing | failing << Spoilt : failing;
        }

        private bool HalfShows(int lanes)
        {
            return Enumerable.Range(0, 2).Any(i => (lanes & 1 << i) != 0 && chips[i].HalfShows());
        }

        private void Record(int lanes)
        {
            var failed = LetFail(lanes);
            var job = chips[(lanes & 1) != 0 ? 0 : 1].Job;
            var entry = new FlashTraceEntry
            {
                Kind = job.Kind,
                Lanes = lanes,
                Offset = job.Word * 4,
                Length = job.Count * 4,
                Start = job.Start,
                End = job.End,
                Data = new byte[0],
                Failed = failed
            };
            if(job.Kind != FlashOperation.Erase)
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
                if(Pc() < NorChip.Total)
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
        private readonly List<FlashTraceEntry> trace = new List<FlashTraceEntry>();
        private readonly List<FlashFault> faults = new List<FlashFault>();
        private readonly List<NorWorn> worn = new List<NorWorn>();

        private const int FaultsKept = 64;
        private const int Spoilt = 4; // bits of lanes that fail, before those that spoil cells besides
        private const string HowToMake =
            "To make such a file: unbrick firmware build, then\n"
            + "unbrick image factory --boot build/firmware/boot.bin \\\n"
            + "    --application build/firmware/terminal-1.0.0.hex --serial UB-000001 -o build/terminal.nor";
    }
}
