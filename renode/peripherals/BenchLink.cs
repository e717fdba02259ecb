// Lets the bench of Unbrick (harness/unbrick/engine/renode/engine.py) drive a terminal: power, time, both
// UARTs and the NOR, over one connection that this side opens. By hand it is not needed.
//
// A request is one byte that says what, the length of the rest (32 bits, low byte first) and the
// rest; an answer likewise, with 1 for done and 0 for an error, whose text follows. Time passes only
// inside a request, so that the same requests give the same run.

using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Linq;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Threading;

using Antmicro.Renode.Core;
using Antmicro.Renode.Logging;
using Antmicro.Renode.Peripherals.CPU;
using Antmicro.Renode.Peripherals.Timers;
using Antmicro.Renode.Peripherals.UART;
using Antmicro.Renode.Time;

namespace Antmicro.Renode.Peripherals.Unbrick
{
    public static class BenchLinkExtensions
    {
        // The bench listens on this port of the loopback interface and knows the token.
        public static void ConnectBench(this IMachine machine, int port, string token)
        {
            var link = new BenchLink(machine);
            new Thread(() => link.Serve(port, token)) { IsBackground = true, Name = "Unbrick bench" }.Start();
        }
    }

    public class BenchLink
    {
        public BenchLink(IMachine machine)
        {
            this.machine = machine;
            var bus = machine.SystemBus;
            nor = machine.GetPeripheralsOfType<NorFlash>().Single();
            cpu = bus.GetCPUs().OfType<TranslationCPU>().Single();
            cpu.AddHookAtInterruptBegin(Exception);
            lines = new[] { "uart0", "uart1" }.Select(name => new BenchLine(this, machine, "sysbus." + name)).ToArray();
            Logger.AddBackend(new BenchLog(this), "unbrick", true);
        }

        public void Serve(int port, string token)
        {
            try
            {
                using(var client = new TcpClient())
                {
                    client.NoDelay = true;
                    client.Connect(IPAddress.Loopback, port);
                    var stream = client.GetStream();
                    var reader = new BinaryReader(new BufferedStream(stream, 65536));
                    Send(stream, Encoding.ASCII.GetBytes(token));
                    while(true)
                    {
                        Send(stream, Answer(reader));
                    }
                }
            }
            catch(Exception e) when(e is IOException || e is SocketException || e is ObjectDisposedException)
            {
                // The bench is gone, and nobody else can see this emulation.
                Process.GetCurrentProcess().Kill();
            }
        }

        internal void Sent()
        {
            Interlocked.Exchange(ref quiet, 0);
        }

        internal void Fault(string kind, string text)
        {
            lock(faults)
            {
                faultCount++;
                if(faults.Count < FaultsKept)
                {
                    faults.Add(Line(kind, cpu.PC.RawValue, Nanoseconds, text));
                }
            }
        }

        private static string Line(string kind, ulong pc, ulong time, string text)
        {
            var oneLine = string.Join(" ", text.Split('\n', '\r', '\t'));
            return string.Format("{0}\t{1}\t{2}\t{3}", kind, pc, time, oneLine);
        }

        private static void Send(Stream stream, byte[] data)
        {
            stream.Write(data, 0, data.Length);
        }

        private byte[] Answer(BinaryReader reader)
        {
            var request = (char)reader.ReadByte();
            var length = reader.ReadInt32();
            if(length < 0 || length > NorFlash.Modelled)
            {
                throw new IOException("a request is too long");
            }
            var body = reader.ReadBytes(length);
            if(body.Length != length)
            {
                throw new IOException("the bench is gone");
            }
            byte done = 1;
            byte[] rest;
            try
            {
                var answer = new MemoryStream();
                Carry(request, new BinaryReader(new MemoryStream(body)), body, new BinaryWriter(answer));
                rest = answer.ToArray();
            }
            catch(Exception e)
            {
                done = 0;
                rest = Encoding.UTF8.GetBytes(e.Message);
            }
            return new[] { done }.Concat(BitConverter.GetBytes(rest.Length)).Concat(rest).ToArray();
        }

        private void Carry(char request, BinaryReader reader, byte[] body, BinaryWriter writer)
        {
            switch(request)
            {
            case 'P': // power on
                machine.Reset();
                foreach(var line in lines)
                {
                    line.Clear();
                }
                cpu.ClearTranslationCache();
                powered = true;
                break;
            case 'O': // power off
                powered = false;
                nor.PowerOff();
                break;
            case 'R':
                Run(reader.ReadUInt64(), reader);
                State(writer);
                break;
            case 'N':
                nor.Settle();
                writer.Write(nor.Cells);
                break;
            case 'L':
                nor.SetCells(body);
                break;
            case 'Z':
                nor.Forget();
                lock(faults)
                {
                    faults.Clear();
                    faultCount = 0;
                }
                writer.Write(Nanoseconds);
                break;
            case 'C':
                nor.CutBefore = reader.ReadUInt64();
                break;
            case 'T':
                Trace(reader.ReadInt32(), writer);
                break;
            case 'F':
                lock(faults)
                {
                    var all = faults.Concat(nor.FaultList.Select(f => Line(f.Kind, f.Pc, f.Time, f.Text)));
                    writer.Write(Encoding.UTF8.GetBytes(string.Join("\n", all)));
                }
                break;
            case 'W':
                Wear(reader);
                break;
            case 'B':
                Batch(reader, writer);
                break;
            default:
                throw new InvalidOperationException("no such request");
            }
        }

        // At most `period` nanoseconds; comes back early when the terminal has said something whole.
        private void Run(ulong period, BinaryReader reader)
        {
            foreach(var line in lines)
            {
                line.Give(reader.ReadBytes(reader.ReadInt32()));
            }
            var end = Nanoseconds + period;
            quiet = 2;
            while(powered && Nanoseconds < end && !nor.CutReached)
            {
                var slice = Math.Min(lines.Any(line => line.Waits) ? Slice : LongSlice, end - Nanoseconds);
                quiet++;
                EmulationManager.Instance.CurrentEmulation.RunFor(TimeInterval.FromTicks(slice * Tick));
                if(lines.Any(line => line.Whole) || (quiet == 1 && lines.Any(line => line.Said)))
                {
                    break;
                }
            }
            nor.Settle();
        }

        private void State(BinaryWriter writer)
        {
            writer.Write(Nanoseconds);
            writer.Write(nor.Generation);
            writer.Write(nor.OperationCount);
            writer.Write(faultCount + nor.FaultCount);
            writer.Write(nor.CutReached);
            foreach(var line in lines)
            {
                var data = line.Take();
                writer.Write(data.Length);
                writer.Write(data);
            }
        }

        private void Trace(int from, BinaryWriter writer)
        {
            foreach(var entry in nor.Operations.Skip(from))
            {
                writer.Write((byte)entry.Kind);
                writer.Write((byte)entry.Lanes);
                writer.Write(entry.Offset);
                writer.Write(entry.Length);
                writer.Write(entry.Start);
                writer.Write(entry.End);
                writer.Write((byte)entry.Failed);
                writer.Write(entry.Data.Length);
                writer.Write(entry.Data);
            }
        }

        // These places are worn, and no others.
        private void Wear(BinaryReader reader)
        {
            nor.Mend();
            while(reader.BaseStream.Position < reader.BaseStream.Length)
            {
                nor.Wear(new NorWorn
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
                    writer.Write(nor.ReadDoubleWord(offset));
                    break;
                case 1:
                    nor.WriteDoubleWord(offset, (uint)value);
                    break;
                case 2:
                    nor.Elapsed += value;
                    break;
                default:
                    nor.Reset();
                    break;
                }
            }
        }

        // Interrupts are never taken on this board: whatever the CPU takes is an error.
        private void Exception(ulong number)
        {
            Fault("exception", string.Format("the CPU took exception {0}", number));
        }

        private ulong Nanoseconds
        {
            get
            {
                return EmulationManager.Instance.CurrentEmulation.MasterTimeSource.ElapsedVirtualTime.Ticks / Tick;
            }
        }

        private int quiet; // slices without output
        private int faultCount;
        private bool powered;
        private readonly IMachine machine;
        private readonly NorFlash nor;
        private readonly TranslationCPU cpu;
        private readonly BenchLine[] lines;
        private readonly List<string> faults = new List<string>();

        private const int FaultsKept = 64;
        private const ulong Slice = 2000000; // ns: a terminal that is given something may answer soon
        private const ulong LongSlice = 5000000;
        private static readonly ulong Tick = TimeInterval.FromMicroseconds(1).Ticks / 1000;
    }

    // A UART as the bench has it: bytes arrive at the line's rate, 115200 8N1.
    internal class BenchLine
    {
        public BenchLine(BenchLink link, IMachine machine, string name)
        {
            this.link = link;
            uart = (IUART)machine[name];
            end = (byte)(name.EndsWith("0") ? '\n' : 0xC0); // of a line, of a frame
            uart.CharReceived += Sent;
            clock = new LimitTimer(machine.ClockSource, 1000000, uart, "line", limit: BytesTime, eventEnabled: true);
            clock.LimitReached += Feed;
        }

        public bool Whole { get; private set; }

        public bool Said
        {
            get { return output.Count > 0; }
        }

        public bool Waits
        {
            get { return input.Count > 0; }
        }

        public void Clear()
        {
            input.Clear();
            clock.Enabled = false;
        }

        public void Give(byte[] data)
        {
            foreach(var value in data)
            {
                input.Enqueue(value);
            }
            clock.Enabled = Waits;
        }

        public byte[] Take()
        {
            lock(output)
            {
                var data = output.ToArray();
                output.Clear();
                Whole = false;
                return data;
            }
        }

        // Half of what the UART's FIFO holds, at once.
        private void Feed()
        {
            for(var i = 0; i < Bytes && input.Count > 0; i++)
            {
                uart.WriteChar(input.Dequeue());
            }
            clock.Enabled = Waits;
        }

        private void Sent(byte value)
        {
            lock(output)
            {
                output.Add(value);
                Whole = Whole || value == end;
            }
            link.Sent();
        }

        private readonly BenchLink link;
        private readonly LimitTimer clock;
        private readonly IUART uart;
        private readonly byte end;
        private readonly Queue<byte> input = new Queue<byte>();
        private readonly List<byte> output = new List<byte>();

        private const int Bytes = 8;
        private const ulong BytesTime = 694; // us
    }

    // What Renode itself finds wrong with the firmware it only says in its log.
    internal class BenchLog : LoggerBackend
    {
        public BenchLog(BenchLink link)
        {
            this.link = link;
        }

        public override void Log(LogEntry entry)
        {
            if(entry.Message.Contains("non existing peripheral"))
            {
                link.Fault("bounds", entry.FullMessage);
            }
            else if(entry.Message.Contains("CPU abort"))
            {
                link.Fault("exception", entry.FullMessage);
            }
        }

        private readonly BenchLink link;
    }
}
