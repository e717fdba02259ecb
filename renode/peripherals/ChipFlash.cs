// The flash of a microcontroller for Renode: its regions, whose cells firmware reads and executes, and
// what all controllers have in common (Flash*.cs beside it). Stores go to the controller. While an
// operation is under way, code in the flash waits: the CPU is halted until its end.
//
// The same in C is harness/unbrick/engine/mcu/c; tests/test_second_opinion.py compares the two.

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;

using Antmicro.Renode.Core;
using Antmicro.Renode.Exceptions;
using Antmicro.Renode.Logging;
using Antmicro.Renode.Peripherals.Bus;
using Antmicro.Renode.Peripherals.CPU;
using Antmicro.Renode.Peripherals.Timers;
using Antmicro.Renode.Time;
using Antmicro.Renode.Utilities;

namespace Antmicro.Renode.Peripherals.Unbrick
{
    // A part of the address space that shows flash cells. The CPU takes vectors and code from what is
    // an IMemory only. Where it is executed from, `cpu RegisterAccessFlags` has to say so.
    public class FlashRegion : IMemory
    {
        public FlashRegion(ChipFlash controller, uint start, uint size)
        {
            this.controller = controller;
            Start = start;
            Cells = Enumerable.Repeat((byte)0xFF, (int)size).ToArray();
            First = controller.Add(this);
        }

        public long Size
        {
            get { return Cells.Length; }
        }

        public byte[] Cells { get; private set; }

        public uint Start { get; private set; } // its address

        public uint First { get; private set; } // where it begins in the image of all regions

        public void Reset()
        {
        }

        public bool IsBlank(uint offset, uint length)
        {
            return Cells.Skip((int)offset).Take((int)length).All(cell => cell == 0xFF);
        }

        public byte ReadByte(long offset)
        {
            return (byte)Read(offset, 1);
        }

        public ushort ReadWord(long offset)
        {
            return (ushort)Read(offset, 2);
        }

        public uint ReadDoubleWord(long offset)
        {
            return (uint)Read(offset, 4);
        }

        public ulong ReadQuadWord(long offset)
        {
            return Read(offset, 8);
        }

        public byte[] ReadBytes(long offset, int count, IPeripheral context = null)
        {
            controller.Settle();
            return Cells.Skip((int)offset).Take(count).ToArray();
        }

        public void WriteByte(long offset, byte value)
        {
            controller.Store(this, (uint)offset, 1, value);
        }

        public void WriteWord(long offset, ushort value)
        {
            controller.Store(this, (uint)offset, 2, value);
        }

        public void WriteDoubleWord(long offset, uint value)
        {
            controller.Store(this, (uint)offset, 4, value);
        }

        public void WriteQuadWord(long offset, ulong value)
        {
            controller.Store(this, (uint)offset, 8, (uint)value);
        }

        public void WriteBytes(long offset, byte[] array, int startingIndex, int count, IPeripheral context = null)
        {
            throw new RecoverableException("flash is not written like RAM: give the controller the whole image");
        }

        private ulong Read(long offset, int size)
        {
            controller.Settle();
            ulong value = 0;
            for(var i = size - 1; i >= 0; i--)
            {
                value = value << 8 | (offset + i < Cells.Length ? Cells[offset + i] : (byte)0xFF);
            }
            return value;
        }

        private readonly ChipFlash controller;
    }

    // Not to be saved: a snapshot cannot hold peripherals that are compiled when they are loaded.
    public abstract class ChipFlash : IDoubleWordPeripheral, IKnownSize, IFlash
    {
        protected ChipFlash(IMachine machine, uint programTime, uint eraseTime, uint massEraseTime)
        {
            this.machine = machine;
            ProgramTime = programTime;
            EraseTime = eraseTime;
            MassEraseTime = massEraseTime;
            release = new LimitTimer(machine.ClockSource, 1000000, this, "operation", limit: 1,
                workMode: WorkMode.OneShot, eventEnabled: true);
            release.LimitReached += Release;
        }

        public abstract long Size { get; }

        // All regions, one after the other.
        public byte[] Cells
        {
            get { return regions.SelectMany(region => region.Cells).ToArray(); }
        }

        public ulong Generation { get; private set; }

        public ulong CutBefore { get; set; } = ulong.MaxValue;

        public bool CutReached { get; private set; }

        public int OperationCount
        {
            get { return trace.Count; }
        }

        public IList<FlashTraceEntry> Operations
        {
            get { return trace; }
        }

        public int FaultCount { get; private set; }

        public IList<FlashFault> FaultList
        {
            get { return faults; }
        }

        public string[,] Trace()
        {
            return FlashTables.ListOperations(this);
        }

        public string[,] Faults()
        {
            return FlashTables.ListFaults(this, machine.SystemBus);
        }

        // A region is made, and lies behind those before it.
        public uint Add(FlashRegion region)
        {
            var first = regions.Sum(one => one.Size);
            regions.Add(region);
            return (uint)first;
        }

        public void SetCells(byte[] image)
        {
            if(image.Length > regions.Sum(region => region.Size))
            {
                throw new RecoverableException("the image is longer than the flash");
            }
            foreach(var region in regions)
            {
                for(var i = 0; i < region.Cells.Length; i++)
                {
                    var at = region.First + i;
                    region.Cells[i] = at < image.Length ? image[at] : (byte)0xFF;
                }
            }
            Generation++;
            ForgetCode();
        }

        // A string and no ReadFilePath: for that the monitor would not say what is wrong.
        public void Load(string path)
        {
            try
            {
                SetCells(File.ReadAllBytes(path));
            }
            catch(Exception e) when(e is IOException || e is UnauthorizedAccessException)
            {
                throw new RecoverableException(string.Format("{0} cannot be read: {1}", path, e.Message));
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
                throw new RecoverableException(string.Format("{0} cannot be written: {1}", path, e.Message));
            }
        }

        public void Settle()
        {
            if(job != null && Now() >= job.End)
            {
                Finish();
            }
        }

        // What is under way is carried out. A cut in the middle of an operation is the bench's: it
        // calculates the cells that it leaves.
        public void PowerOff()
        {
            Complete();
            ForgetPast();
        }

        public void Forget()
        {
            trace.Clear();
            faults.Clear();
            FaultCount = 0;
        }

        public void Carry(char request, BinaryReader reader, BinaryWriter writer)
        {
            throw new InvalidOperationException("no such request");
        }

        // A reset waits for what is under way. A cut strikes once.
        public void Reset()
        {
            if(CutReached)
            {
                CutBefore = ulong.MaxValue;
            }
            Complete();
            stopped = false;
            ResetRegisters();
            foreach(var cpu in machine.SystemBus.GetCPUs().OfType<IControllableCPU>())
            {
                cpu.IsHalted = false;
            }
        }

        public abstract uint ReadDoubleWord(long offset);

        public abstract void WriteDoubleWord(long offset, uint value);

        // The firmware stores to a region.
        public void Store(FlashRegion region, uint offset, int size, uint value)
        {
            if(!stopped)
            {
                Settle();
                TakeStore(region, offset, size, value);
            }
        }

        protected abstract void ResetRegisters();

        // The power has gone, and with it what the controller knows besides the cells.
        protected virtual void ForgetPast()
        {
        }

        protected abstract void TakeStore(FlashRegion region, uint offset, int size, uint value);

        // An operation has come to its end.
        protected virtual void Finished()
        {
        }

        // The region at an address and the offset there, if any.
        protected FlashRegion Find(ulong address, out uint offset)
        {
            foreach(var region in regions)
            {
                offset = (uint)address - region.Start;
                if(offset < region.Size)
                {
                    return region;
                }
            }
            offset = 0;
            return null;
        }

        // Begin an operation; data is null for an erase, and with `all` every region is erased. False:
        // the power is gone.
        protected bool Begin(FlashRegion region, uint offset, uint length, byte[] data, uint microseconds, bool all = false)
        {
            if((ulong)trace.Count == CutBefore)
            {
                CutReached = true;
                stopped = true;
                Halt();
                return false;
            }
            Await();
            var start = Math.Max(Now(), end);
            end = start + microseconds * 1000ul;
            job = new FlashTraceEntry
            {
                Kind = data == null ? FlashOperation.Erase : FlashOperation.Word,
                Lanes = 1,
                Offset = region.First + offset,
                Length = all ? (uint)regions.Sum(one => one.Size) : length,
                Start = start,
                End = end,
                Data = data ?? new byte[0]
            };
            trace.Add(job);
            if(RunsFromFlash)
            {
                Await(); // nobody can look before the end
            }
            return true;
        }

        // The bus waits for the end of what is under way, if anything, and the CPU with it.
        protected void Await()
        {
            if(job != null)
            {
                Finish();
                Halt();
                release.Limit = (end - Now()) / 1000 + 1;
                release.ResetValue();
                release.Enabled = true;
            }
        }

        protected bool Busy
        {
            get { return Now() < end; }
        }

        // An operation that code in RAM has begun, and that has not ended.
        protected bool IsUnderWay
        {
            get { return job != null; }
        }

        protected bool IsErase
        {
            get { return trace.Count > 0 && trace[trace.Count - 1].Kind == FlashOperation.Erase; }
        }

        // Whether the two keys of an STM32 have opened the lock. A wrong one shuts it until the next reset.
        protected bool TakeKey(ref int taken, uint value, uint first, uint second)
        {
            if(taken == 0 && value == first)
            {
                taken = 1;
            }
            else if(taken == 1 && value == second)
            {
                taken = Open;
            }
            else if(taken != Open)
            {
                taken = Jammed;
                Fault("flash-locked", "0x{0:x} is not the key that is due", value);
            }
            return taken == Open;
        }

        protected void Fault(string kind, string format, params object[] arguments)
        {
            FaultCount++;
            if(faults.Count < FaultsKept)
            {
                var text = string.Format(format, arguments);
                this.Log(LogLevel.Warning, "{0}: {1}", kind, text);
                faults.Add(new FlashFault { Kind = kind, Pc = Pc, Time = Now(), Text = text });
            }
        }

        protected static byte[] Bytes(uint value, int size)
        {
            return BitConverter.GetBytes(value).Take(size).ToArray();
        }

        protected readonly uint ProgramTime; // microseconds, as all times here
        protected readonly uint EraseTime;
        protected readonly uint MassEraseTime;

        private void Complete()
        {
            if(job != null)
            {
                Finish();
            }
            end = 0;
            release.Enabled = false;
            CutReached = false;
        }

        private void Finish()
        {
            var done = job;
            job = null;
            var wasCode = false;
            foreach(var region in regions)
            {
                var first = Math.Max(done.Offset, region.First);
                var last = Math.Min(done.Offset + done.Length, region.First + (uint)region.Size);
                for(var at = first; at < last; at++)
                {
                    var cell = region.Cells[at - region.First];
                    wasCode |= cell != 0xFF;
                    region.Cells[at - region.First] = done.Kind == FlashOperation.Erase
                        ? (byte)0xFF
                        : (byte)(cell & done.Data[at - done.Offset]);
                }
            }
            Generation++;
            if(wasCode)
            {
                ForgetCode();
            }
            Finished();
        }

        private void Halt()
        {
            ICPU cpu;
            if(machine.SystemBus.TryGetCurrentCPU(out cpu))
            {
                ((IControllableCPU)cpu).IsHalted = true;
            }
        }

        private void Release()
        {
            foreach(var cpu in machine.SystemBus.GetCPUs().OfType<IControllableCPU>())
            {
                cpu.IsHalted = stopped;
            }
        }

        private void ForgetCode()
        {
            foreach(var cpu in machine.SystemBus.GetCPUs().OfType<TranslationCPU>())
            {
                cpu.ClearTranslationCache();
            }
        }

        private bool RunsFromFlash
        {
            get
            {
                var at = machine.SystemBus.WhatPeripheralIsAt(Pc);
                return at is FlashRegion;
            }
        }

        private ulong Now()
        {
            ICPU cpu;
            if(machine.SystemBus.TryGetCurrentCPU(out cpu))
            {
                cpu.SyncTime();
            }
            return (ulong)(machine.ElapsedVirtualTime.TimeElapsed.TotalSeconds * 1e9);
        }

        // Of the basic block under way; beyond the address space when no CPU is at work.
        private ulong Pc
        {
            get
            {
                ICPU cpu;
                return machine.SystemBus.TryGetCurrentCPU(out cpu) ? cpu.PC.RawValue : ulong.MaxValue;
            }
        }

        private FlashTraceEntry job; // null: none
        private ulong end; // of the last operation
        private bool stopped; // by a cut, until the next reset
        private readonly IMachine machine;
        private readonly LimitTimer release;
        private readonly List<FlashRegion> regions = new List<FlashRegion>();
        private readonly List<FlashTraceEntry> trace = new List<FlashTraceEntry>();
        private readonly List<FlashFault> faults = new List<FlashFault>();

        private const int FaultsKept = 64;
        private const int Open = 2; // both keys have come
        private const int Jammed = 3;
    }
}
