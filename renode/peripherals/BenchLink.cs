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
using Antmicro.Renode.Exceptions;
using Antmicro.Renode.Logging;
using Antmicro.Renode.Peripherals.CPU;
using Antmicro.Renode.Peripherals.Timers;
using Antmicro.Renode.Peripherals.UART;
using Antmicro.Renode.Time;

namespace Antmicro.Renode.Peripherals.Unbrick
{
    public static class BenchLinkExtensions
    {
        // The bench listens on this port of the loopback interface and knows the token. The UARTs are
        // named, or have addresses, with commas between them.
        public static void ConnectBench(this IMachine machine, int port, string token, string uarts, bool isChip)
        {
            var link = new BenchLink(machine, uarts.Split(','), isChip);
            new Thread(() => link.Serve(port, token)) { IsBackground = true, Name = "Unbrick bench" }.Start();
        }
    }

    public class BenchLink
    {
        public BenchLink(IMachine machine, string[] uarts, bool isChip)
        {
            this.machine = machine;
            this.isChip = isChip;
            var bus = machine.SystemBus;
            flash = machine.GetPeripheralsOfType<IFlash>().Single();
            cpu = bus.GetCPUs().OfType<TranslationCPU>().Single();
            cpu.AddHookAtInterruptBegin(Exception);
            lines = uarts.Select((name, number) => MakeLine(name, number)).ToArray();
            machine.MachineReset += _ => resets++;
            Logger.AddBackend(new BenchLog(this, isChip), "unbrick", true);
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
            if(length < 0 || length > LongestRequest)
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
            case 'P': // power on; what the RAM holds then, by address, if the bench says so
                machine.Reset();
                while(reader.BaseStream.Position < body.Length)
                {
                    var address = reader.ReadUInt64();
                    machine.SystemBus.WriteBytes(reader.ReadBytes(reader.ReadInt32()), address);
                }
                resets = 0;
                foreach(var line in lines)
                {
                    line.Clear();
                }
                cpu.ClearTranslationCache();
                powered = true;
                break;
            case 'O': // power off
                powered = false;
                flash.PowerOff();
                break;
            case 'R':
                Run(reader.ReadUInt64(), reader);
                State(writer);
                break;
            case 'N':
                flash.Settle();
                writer.Write(flash.Cells);
                break;
            case 'L':
                flash.SetCells(body);
                break;
            case 'Z':
                flash.Forget();
                lock(faults)
                {
                    faults.Clear();
                    faultCount = 0;
                }
                writer.Write(Nanoseconds);
                break;
            case 'C':
                flash.CutBefore = reader.ReadUInt64();
                break;
            case 'T':
                Trace(reader.ReadInt32(), writer);
                break;
            case 'F':
                lock(faults)
                {
                    var all = faults.Concat(flash.FaultList.Select(f => Line(f.Kind, f.Pc, f.Time, f.Text)));
                    writer.Write(Encoding.UTF8.GetBytes(string.Join("\n", all)));
                }
                break;
            case 'M': // memory that is no flash
                var from = reader.ReadUInt64();
                writer.Write(machine.SystemBus.ReadBytes(from, reader.ReadInt32()));
                break;
            case 'S': // the reset pin
                machine.Reset();
                break;
            default:
                flash.Carry(request, reader, writer);
                break;
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
            while(powered && Nanoseconds < end && !flash.CutReached)
            {
                var slice = Math.Min(lines.Any(line => line.Waits) ? Slice : LongSlice, end - Nanoseconds);
                quiet++;
                EmulationManager.Instance.CurrentEmulation.RunFor(TimeInterval.FromTicks(slice * Tick));
                if(lines.Any(line => line.Whole) || (quiet == 1 && lines.Any(line => line.Said)))
                {
                    break;
                }
            }
            flash.Settle();
        }

        private void State(BinaryWriter writer)
        {
            writer.Write(Nanoseconds);
            writer.Write(flash.Generation);
            writer.Write(flash.OperationCount);
            writer.Write(faultCount + flash.FaultCount);
            writer.Write(flash.CutReached);
            writer.Write(cpu.PC.RawValue);
            writer.Write(resets);
            foreach(var line in lines)
            {
                var data = line.Take();
                writer.Write(data.Length);
                writer.Write(data);
            }
        }

        private void Trace(int from, BinaryWriter writer)
        {
            foreach(var entry in flash.Operations.Skip(from))
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

        private BenchLine MakeLine(string name, int number)
        {
            var uart = name.StartsWith("0x")
                ? machine.SystemBus.WhatPeripheralIsAt(Convert.ToUInt64(name, 16))
                : (IPeripheral)machine["sysbus." + name];
            if(!(uart is IUART))
            {
                throw new RecoverableException(string.Format("there is no UART at {0}", name));
            }
            return new BenchLine(this, machine, (IUART)uart, number, isChip ? 1 : TerminalBytes);
        }

        // Interrupts are never taken on the terminal's board: whatever the CPU takes is an error. Chips
        // take them; of those here only undefined code and accesses that fail are faults.
        private void Exception(ulong number)
        {
            if(isChip && number != Undefined && number != PrefetchAbort && number != DataAbort)
            {
                return;
            }
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
        private int resets; // since the power came
        private bool powered;
        private readonly IMachine machine;
        private readonly IFlash flash;
        private readonly bool isChip;
        private readonly TranslationCPU cpu;
        private readonly BenchLine[] lines;
        private readonly List<string> faults = new List<string>();

        private const int LongestRequest = 1 << 24; // bytes
        private const int FaultsKept = 64;
        private const int TerminalBytes = 8; // half of what its UARTs' FIFO holds, at once
        private const ulong Undefined = 1; // exceptions, as Renode's Arm core counts them
        private const ulong PrefetchAbort = 3;
        private const ulong DataAbort = 4;
        private const ulong Slice = 2000000; // ns: a terminal that is given something may answer soon
        private const ulong LongSlice = 5000000;
        private static readonly ulong Tick = TimeInterval.FromMicroseconds(1).Ticks / 1000;
    }

    // A UART as the bench has it: bytes arrive at the line's rate, 115200 8N1.
    internal class BenchLine
    {
        public BenchLine(BenchLink link, IMachine machine, IUART uart, int number, int bytes)
        {
            this.link = link;
            this.uart = uart;
            this.bytes = bytes;
            end = (byte)(bytes == 1 || number == 0 ? '\n' : 0xC0); // of a line, of a frame
            uart.CharReceived += Sent;
            clock = new LimitTimer(machine.ClockSource, 10000000, uart, "line" + number,
                limit: (ulong)bytes * ByteTime, eventEnabled: true);
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

        private void Feed()
        {
            for(var i = 0; i < bytes && input.Count > 0; i++)
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

        private readonly int bytes; // that are given at once

        private const ulong ByteTime = 868; // of 0.1 us, at 115200 8N1
    }

    // What Renode itself finds wrong with the firmware it only says in its log.
    internal class BenchLog : LoggerBackend
    {
        public BenchLog(BenchLink link, bool isChip)
        {
            this.link = link;
            this.isChip = isChip;
        }

        public override void Log(LogEntry entry)
        {
            if(entry.Message.Contains("non existing peripheral"))
            {
                if(!isChip) // chips have devices that Renode does not know
                {
                    link.Fault("bounds", entry.FullMessage);
                }
            }
            else if(entry.Message.Contains("PC does not lay in memory"))
            {
                link.Fault("hard-fault", "there are no vectors to start from");
            }
            else if(entry.Message.Contains("CPU abort"))
            {
                link.Fault("exception", entry.FullMessage);
            }
        }

        private readonly BenchLink link;
        private readonly bool isChip;
    }
}
