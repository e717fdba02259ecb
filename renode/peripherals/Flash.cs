// What every flash memory of ours has in common: operations that are counted and listed, a cut before
// one of them, and faults of the firmware. The bench (BenchLink.cs) knows no more of it.

using System.Collections.Generic;
using System.IO;

using Antmicro.Renode.Core;
using Antmicro.Renode.Peripherals.Bus;

namespace Antmicro.Renode.Peripherals.Unbrick
{
    public enum FlashOperation
    {
        None,
        Word,
        Buffer,
        Erase,
        BlankCheck
    }

    // One operation. Offset and length in bytes, times in nanoseconds of virtual time; lanes: bit 0
    // the first chip, bit 1 one beside it.
    public class FlashTraceEntry
    {
        public FlashOperation Kind;
        public int Lanes;
        public uint Offset;
        public uint Length;
        public ulong Start;
        public ulong End;
        public byte[] Data; // what was to be programmed, 0xFF where nothing was given
        public int Failed; // lanes that end it with an error; from bit 4 on those that spoil cells
    }

    public class FlashFault
    {
        public string Kind;
        public ulong Pc;
        public ulong Time;
        public string Text;
    }

    public interface IFlash : IPeripheral
    {
        byte[] Cells { get; }

        // Counts up whenever cells change.
        ulong Generation { get; }

        // Power is cut just before this operation, counted from 0: it does not begin and the CPU
        // is halted.
        ulong CutBefore { get; set; }

        bool CutReached { get; }

        int OperationCount { get; }

        IList<FlashTraceEntry> Operations { get; }

        int FaultCount { get; }

        // The first 64 faults.
        IList<FlashFault> FaultList { get; }

        // Replace the cells; the rest of a shorter image is blank.
        void SetCells(byte[] image);

        // Carry out what has come to its end.
        void Settle();

        // Power goes, now. The cells stay.
        void PowerOff();

        // Begin to count anew: no operation and no fault so far.
        void Forget();

        // A request of the bench that BenchLink does not know itself.
        void Carry(char request, BinaryReader reader, BinaryWriter writer);
    }

    // What the monitor shows.
    public static class FlashTables
    {
        public static string[,] ListOperations(IFlash flash)
        {
            var table = Begin(flash.OperationCount, "#", "operation", "offset", "length", "at (ms)");
            for(var i = 0; i < flash.OperationCount; i++)
            {
                var entry = flash.Operations[i];
                table[i + 1, 0] = i.ToString();
                table[i + 1, 1] = entry.Kind.ToString();
                table[i + 1, 2] = string.Format("0x{0:x6}", entry.Offset);
                table[i + 1, 3] = entry.Length.ToString();
                table[i + 1, 4] = string.Format("{0:0.000}", entry.Start / 1e6);
            }
            return table;
        }

        public static string[,] ListFaults(IFlash flash, IBusController bus)
        {
            var faults = flash.FaultList;
            var table = Begin(faults.Count, "kind", "pc", "function", "what");
            for(var i = 0; i < faults.Count; i++)
            {
                table[i + 1, 0] = faults[i].Kind;
                table[i + 1, 1] = string.Format("0x{0:x}", faults[i].Pc);
                table[i + 1, 2] = bus.FindSymbolAt(faults[i].Pc) ?? "";
                table[i + 1, 3] = faults[i].Text;
            }
            return table;
        }

        private static string[,] Begin(int rows, params string[] titles)
        {
            var table = new string[rows + 1, titles.Length];
            for(var column = 0; column < titles.Length; column++)
            {
                table[0, column] = titles[column];
            }
            return table;
        }
    }
}
