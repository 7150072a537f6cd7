#!/usr/bin/env python3
"""Thousands of mixed requests against one `martlet serve`, by plain sockets: needs Python 3.9 and nothing else.

    scripts/soak.py --martlet .build/release/martlet --model DIR [--requests 2000] [--clients 24] [--seed 1] [--json]

Short and long speech, events, files, text in pieces over WebSocket, clients that leave at random, that read slowly or not
at all, and requests that make no sense. Every distinct speech is first spoken alone; in the mix, each one that finishes
must have the same codes, samples and finish reason, and every other request the answer that it deserves. The server must
not crash, must be empty at the end and must not grow. Leaves with status 1 if anything is not as it should be.
"""

import argparse
import base64
import hashlib
import json
import os
import queue
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time

HOST = "127.0.0.1"
WRITE_TIMEOUT = 3
TEXTS = [
    "Yes.",
    "Good morning, how did you sleep?",
    "The train leaves in ten minutes.",
    "A swift spends almost its whole life in the air. It eats, drinks and even sleeps while it flies.",
    "Please turn left after the bridge, then follow the river for a mile until you see a red barn.",
    "The lighthouse keeper wrote down the weather every evening, even when nothing had changed. On the first page he "
    "noted a calm sea and a pale sky; on the last, forty years later, he noted the same.",
]


class Wrong(Exception):
    """An answer that is not as it should be."""


class Connection:
    """A socket to the server that reads as much as it is asked to."""

    def __init__(self, port, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(300)
        self.socket.connect((HOST, port))
        self.buffer = b""
        self.pause = 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def fill(self):
        if self.pause:
            time.sleep(self.pause)
        data = self.socket.recv(2048 if self.pause else 65536)
        self.buffer += data
        return bool(data)

    def take(self, count):
        while len(self.buffer) < count:
            if not self.fill():
                raise EOFError
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def line(self):
        while b"\r\n" not in self.buffer:
            if not self.fill():
                raise EOFError
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode("latin-1")

    def fields(self):
        fields = {}
        while line := self.line():
            name, _, value = line.partition(":")
            fields[name.strip().lower()] = value.strip()
        return fields

    def head(self):
        status = int(self.line().split(" ")[1])
        return status, self.fields()

    def chunks(self, trailers):
        """Pieces of a chunked body; what follows the last one goes into `trailers`."""
        while size := int(self.line(), 16):
            data = self.take(size + 2)
            yield data[:-2]
        trailers.update(self.fields())

    def body(self, headers, trailers):
        if headers.get("transfer-encoding") == "chunked":
            return b"".join(self.chunks(trailers))
        return self.take(int(headers.get("content-length", 0)))

    def request(self, method, path, body=None, headers=""):
        head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{headers}"
        if body is not None:
            head += f"Content-Length: {len(body)}\r\n"
        self.send(head.encode() + b"\r\n" + (body or b""))


def get(port, path):
    with Connection(port) as connection:
        connection.request("GET", path)
        status, headers = connection.head()
        return status, connection.body(headers, {})


def metrics(port):
    values = {}
    for line in get(port, "/metrics")[1].decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            values[name] = float(value)
    return values


# What is spoken.


class Speech:
    """One distinct speech: what the same request must give whenever and beside whatever it is spoken."""

    def __init__(self, text, frames, seed, way):
        self.text, self.frames, self.seed, self.way = text, frames, seed, way
        self.alone = None

    def fields(self, **more):
        # The last token that the limit allows makes no frame.
        return {"input": self.text, "seed": self.seed, "max_new_tokens": self.frames + 1, **more}

    def check(self, result):
        """Compares the codes, the samples and the finish reason with those of the speech alone."""
        if self.alone is None:
            self.alone = result
        elif result != self.alone:
            raise Wrong(f"{self.way}, seed {self.seed}: {result}, alone {self.alone}")


def summary(fields, prefix=""):
    return tuple(fields[prefix + name] for name in ("codes-sha256", "pcm-sha256", "finish-reason"))


def refused(status, headers):
    if status != 503:
        return False
    if "retry-after" not in headers:
        raise Wrong("a 503 without Retry-After")
    return True


def post(port, speech, pause=0.0, receive_buffer=None, **more):
    """A speech over HTTP, read to its end: the body and the trailers; None if the server refused it."""
    with Connection(port, receive_buffer) as connection:
        connection.pause = pause
        connection.request("POST", "/v1/audio/speech", json.dumps(speech.fields(**more)).encode())
        status, headers = connection.head()
        trailers = {}
        data = connection.body(headers, trailers)
    if refused(status, headers):
        return None
    if status != 200:
        raise Wrong(f"speech {more}: {status} {data[:200]!r}")
    return data, trailers


def speak(port, speech, response_format="pcm", pause=0.0, receive_buffer=None):
    """Audio as bytes; the hash of PCM is that of the bytes that came."""
    answer = post(port, speech, pause, receive_buffer, response_format=response_format)
    if answer is None:
        return "refused"
    data, trailers = answer
    result = summary(trailers, "x-martlet-")
    if response_format == "wav":
        data = data[44:]
    if response_format in ("pcm", "wav") and hashlib.sha256(data).hexdigest() != result[1]:
        raise Wrong("the bytes that came do not have the hash that the trailer names")
    speech.check(result)
    return "finished"


def speak_events(port, speech):
    """Audio in server-sent events."""
    answer = post(port, speech, response_format="pcm", stream_format="sse")
    if answer is None:
        return "refused"
    events = [json.loads(line[6:]) for line in answer[0].decode().split("\n") if line.startswith("data: ")]
    pcm = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    result = summary({name.replace("_", "-"): value for name, value in events[-1]["martlet"].items()})
    if events[-1]["type"] != "speech.audio.done" or hashlib.sha256(pcm).hexdigest() != result[1]:
        raise Wrong("the events' audio does not have the hash that the last event names")
    speech.check(result)
    return "finished"


def leave(port, speech, chance):
    """Leaves before, in or after the audio."""
    with Connection(port) as connection:
        body = json.dumps(speech.fields(response_format="pcm")).encode()
        connection.request("POST", "/v1/audio/speech", body)
        wanted = chance.choice([0, 1, 3840, 20_000, 200_000])
        try:
            while len(connection.buffer) < wanted and connection.fill():
                pass
        except ConnectionError:
            pass
        if chance.random() < 0.3:
            # A reset instead of an end.
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return "left"


def stall(port, speech):
    """Asks for a long speech and does not read: the server must end it."""
    with Connection(port, receive_buffer=4096) as connection:
        body = json.dumps(speech.fields(response_format="pcm")).encode()
        connection.request("POST", "/v1/audio/speech", body)
        # Until all buffers on the way are full, and the time limit after that.
        time.sleep(WRITE_TIMEOUT + 20)
        try:
            status, headers = connection.head()
            if refused(status, headers):
                return "refused"
            connection.body(headers, {})
        except (EOFError, ConnectionError):
            return "dropped"
    raise Wrong("a client that does not read was waited for")


def nonsense(port, chance):
    """Requests that make no sense, each with the statuses that are an answer to it; none means the end of the connection."""
    body = {"input": "So.", "max_new_tokens": 3, "response_format": "pcm"}

    def speech(**members):
        return "POST", "/v1/audio/speech", json.dumps({**body, **members}).encode()

    cases = [
        (speech(input=7), {400}),
        (speech(input=""), {400}),
        (speech(voice="nobody"), {400}),
        (speech(model="gpt-9"), {404}),
        (speech(speed=99), {400}),
        (speech(response_format="8-track"), {400}),
        (speech(seed=-1), {400}),
        (speech(max_new_tokens=0), {400}),
        (speech(temperature="hot"), {400}),
        (speech(language="klingon"), {400}),
        (speech(ref_audio="http://127.0.0.1/a.wav"), {400}),
        (speech(input="a" * 70_000), {400}),
        (("POST", "/v1/audio/speech", b'{"input": "So.'), {400}),
        (("POST", "/v1/audio/speech", b"\xff\xfe\x00"), {400}),
        (("POST", "/v1/audio/speech", b"[" * 100_000), {400}),
        (("POST", "/v1/audio/speech", b""), {400}),
        (("GET", "/v1/audio/speech", None), {404, 405}),
        (("GET", "/../../etc/passwd", None), {404}),
        (("DELETE", "/v1/audio/voices/..%2F..%2Fetc", None), {404}),
        (("POST", "/v1/audio/voices", b"not a form"), {400}),
        (("GET", "/v1/audio/speech/stream", None), {426}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), {400, None}),
        (b"GET / HTTP/1.1\r\n" + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n", {400, 431, None}),
        (b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: banana\r\n\r\n", {400, None}),
        (b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{", {413, None}),
        (b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{\"input\"", "leave"),
        (b"", "leave"),
    ]
    request, statuses = cases[chance.randrange(len(cases))]
    with Connection(port) as connection:
        try:
            if isinstance(request, bytes):
                connection.send(request)
            else:
                connection.request(*request)
            if statuses == "leave":
                return "left"
            status, headers = connection.head()
            text = connection.body(headers, {})
        except (EOFError, ConnectionError):
            status, text = None, b""
        except TimeoutError as error:
            raise Wrong(f"{str(request)[:120]}: no answer") from error
    if status not in statuses:
        raise Wrong(f"{str(request)[:120]}: {status} {text[:200]!r}, expected {statuses}")
    if status and not isinstance(request, bytes) and "error" not in json.loads(text):
        raise Wrong(f"{str(request)[:120]}: {text[:200]!r} is no error object")
    return "answered"


# WebSocket, by hand.


class WebSocket(Connection):
    def __init__(self, port):
        super().__init__(port)
        self.request_upgrade()

    def request_upgrade(self):
        self.send(
            f"GET /v1/audio/speech/stream HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n\r\n".encode())
        status, _ = self.head()
        if status != 101:
            raise Wrong(f"the upgrade was answered with {status}")

    def frame(self, opcode, payload):
        mask = os.urandom(4)
        length = len(payload)
        head = bytes([0x80 | opcode])
        if length < 126:
            head += bytes([0x80 | length])
        else:
            head += bytes([0x80 | 126]) + struct.pack(">H", length)
        self.send(head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)))

    def say(self, **message):
        self.frame(1, json.dumps(message).encode())

    def message(self):
        first, length = self.take(2)
        if length == 126:
            length = struct.unpack(">H", self.take(2))[0]
        elif length == 127:
            length = struct.unpack(">Q", self.take(8))[0]
        payload = self.take(length)
        opcode = first & 15
        if opcode == 9:
            self.frame(10, payload)
            return self.message()
        if opcode == 8:
            raise EOFError
        return payload if opcode == 2 else json.loads(payload)


def speak_pieces(port, speeches, chance, leaves=False):
    """Several contexts on one connection, their texts in pieces by turns; some are cancelled on the way."""
    with WebSocket(port) as connection:
        cancelled, pcm, ended, pieces = set(), {}, {}, []
        for index, speech in enumerate(speeches):
            name = str(index)
            pcm[name] = []
            connection.say(type="start", context=name, seed=speech.seed, max_new_tokens=speech.frames + 1)
            text, own = speech.text, []
            while text:
                count = chance.randrange(1, 20)
                own.append(text[:count])
                text = text[count:]
            pieces.append((name, own))
        while pieces:
            name, own = chance.choice(pieces)
            if own:
                connection.say(type="append", context=name, text=own.pop(0))
            else:
                connection.say(type="complete", context=name)
                pieces.remove((name, own))
        if chance.random() < 0.3:
            connection.say(type="append", context="nobody", text="x")
        if chance.random() < 0.3:
            connection.frame(1, b"{not JSON")
        if len(speeches) > 1:
            cancelled.add("0")
        count = 0
        current = None
        while len(ended) < len(speeches):
            message = connection.message()
            if isinstance(message, bytes):
                pcm[current].append(message)
                count += 1
                if count == 2:
                    for name in cancelled:
                        connection.say(type="cancel", context=name)
                if leaves and count == 3:
                    return "left"
            else:
                current = message.get("context")
                if message["type"] == "end":
                    ended[current] = message
                elif message["type"] == "error" and current in pcm:
                    # Text for a context that was refused is refused as well, sometimes before the word of the context
                    # itself, which still has to come.
                    if message["error"]["code"] in ("context_not_found", "context_complete"):
                        continue
                    if message["error"]["code"] != "server_busy":
                        raise Wrong(f"WebSocket: {message}")
                    ended[current] = None
        results = set()
        for index, speech in enumerate(speeches):
            name, end = str(index), ended[str(index)]
            if end is None:
                results.add("refused")
                continue
            result = summary({key.replace("_", "-"): value for key, value in end.items()})
            if name in cancelled and result[2] == "cancelled":
                results.add("cancelled")
                continue
            if hashlib.sha256(b"".join(pcm[name])).hexdigest() != result[1]:
                raise Wrong("WebSocket: the bytes that came do not have the hash that the end names")
            speech.check(result)
            results.add("finished")
        return "finished" if "finished" in results else results.pop()


# The run.


class Server:
    def __init__(self, martlet, model, arguments):
        self.errors = []
        self.process = subprocess.Popen(
            [martlet, "serve", "--model", model, "--port", "0", "--quiet", "--max-streams", "8", "--max-queue", "16",
             "--write-timeout", str(WRITE_TIMEOUT)] + arguments,
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.port = None
        listening = threading.Event()

        def read():
            for line in self.process.stderr:
                if found := re.search(r"listening on .*:(\d+)", line):
                    self.port = int(found[1])
                    listening.set()
                elif " info " not in line:
                    self.errors.append(line.strip())
            listening.set()

        threading.Thread(target=read, daemon=True).start()
        listening.wait(60)
        if self.port is None:
            sys.exit("the server did not start: " + " ".join(self.errors))
        while get(self.port, "/ready")[0] != 200:
            time.sleep(0.05)

    def rest(self):
        """Waits until nothing is spoken any more, and gives the memory in use."""
        deadline = time.monotonic() + 120
        while True:
            values = metrics(self.port)
            if values["martlet_active"] == values["martlet_queue"] == 0:
                return int(values["process_resident_memory_bytes"])
            if time.monotonic() > deadline:
                raise Wrong(f"{values['martlet_active']} utterances are still spoken after everybody has left")
            time.sleep(0.1)


def plan(count, chance):
    """Kinds of requests: half of them speech that is read to its end."""
    speeches = [
        Speech(chance.choice(TEXTS[:3]), chance.randrange(3, 25), seed, "short") for seed in range(16)
    ] + [
        Speech(chance.choice(TEXTS[3:]), chance.randrange(100, 250), 100 + seed, "long") for seed in range(6)
    ]
    short, long = speeches[:16], speeches[16:]
    pieces = [Speech(chance.choice(TEXTS[:5]), chance.randrange(5, 60), 200 + seed, "pieces") for seed in range(10)]
    huge = Speech(TEXTS[5], 900, 300, "stalled")
    kinds = [
        (30, "short", lambda port, own: speak(port, own.choice(short))),
        (8, "long", lambda port, own: speak(port, own.choice(long))),
        (4, "files", lambda port, own: speak(port, own.choice(short), own.choice(["wav", "flac"]))),
        (6, "events", lambda port, own: speak_events(port, own.choice(short))),
        (4, "slow readers", lambda port, own: speak(port, own.choice(long), pause=0.004, receive_buffer=4096)),
        (14, "leavers", lambda port, own: leave(port, own.choice(long), own)),
        (1, "stalled", lambda port, own: stall(port, huge)),
        (15, "malformed", nonsense),
        (12, "WebSocket", lambda port, own: speak_pieces(port, own.sample(pieces, own.randrange(1, 4)), own)),
        (3, "WebSocket leavers", lambda port, own: speak_pieces(port, own.sample(pieces, 2), own, leaves=True)),
        (3, "watchers", lambda port, own: watch(port, own)),
    ]
    chosen = chance.choices(kinds, weights=[weight for weight, _, _ in kinds], k=count)
    return speeches, pieces, huge, [(name, run, chance.randrange(1 << 30)) for _, name, run in chosen]


def watch(port, chance):
    path = chance.choice(["/health", "/ready", "/metrics", "/v1/models", "/v1/audio/voices", "/"])
    status, data = get(port, path)
    if status != 200 or not data:
        raise Wrong(f"{path}: {status}")
    return "answered"


def lengthen(server, speech):
    """Looks for a seed whose speech does not end soon: what buffers can hold stalls nobody."""
    for speech.seed in range(speech.seed, speech.seed + 100):
        answer = post(server.port, speech, response_format="pcm")
        if answer and len(answer[0]) > 2_000_000:
            return
    sys.exit("the model speaks too little to stall anybody")


def alone(server, speeches, pieces):
    for speech in speeches:
        if speak(server.port, speech) != "finished":
            sys.exit("a speech alone was refused")
    for speech in pieces:
        if speak_pieces(server.port, [speech], random.Random(0)) != "finished":
            sys.exit("a speech in pieces alone was refused")
    if len({speech.alone for speech in speeches + pieces}) != len(speeches) + len(pieces):
        sys.exit("different speeches have the same bytes: the comparison would mean nothing")


def soak(server, requests, clients, progress):
    """Runs the requests by so many clients at a time, with a rest after every tenth part to take the memory."""
    results, problems, memory, refusals = {}, [], [server.rest()], [0]
    lock = threading.Lock()
    step = max(1, -(-len(requests) // 10))
    for start in range(0, len(requests), step):
        work = queue.SimpleQueue()
        for request in requests[start:start + step]:
            work.put(request)

        def client():
            while True:
                try:
                    name, run, seed = work.get_nowait()
                except queue.Empty:
                    return
                try:
                    result = run(server.port, random.Random(seed))
                    while result == "refused":
                        # Everyone gets through in the end, so that what is compared does not depend on the load.
                        with lock:
                            refusals[0] += 1
                        time.sleep(0.5)
                        result = run(server.port, random.Random(seed))
                except Exception as error:
                    result = "wrong"
                    with lock:
                        problems.append(f"{name}: {type(error).__name__} {error}")
                with lock:
                    results.setdefault(name, {}).setdefault(result, 0)
                    results[name][result] += 1

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        memory.append(server.rest())
        progress(min(start + step, len(requests)), memory[-1], len(problems))
        if server.process.poll() is not None:
            break
    return results, problems, memory, refusals[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--martlet", default=".build/release/martlet")
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--growth", type=float, default=10, help="percent that memory may grow after the first tenth")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("serve", nargs="*", help="after --: more arguments of 'martlet serve'")
    options = parser.parse_args()

    begin = time.monotonic()
    server = Server(options.martlet, options.model, options.serve)
    speeches, pieces, huge, requests = plan(options.requests, random.Random(options.seed))
    lengthen(server, huge)
    alone(server, speeches, pieces)

    def progress(done, memory, wrong):
        print(f"{done} requests, {memory / 1e6:.1f} MB, {wrong} wrong", file=sys.stderr, flush=True)

    try:
        results, problems, memory, refused = soak(server, requests, options.clients, progress)
        # What the load was must not have changed what a speech is.
        alone(server, speeches, pieces)
        values = metrics(server.port)
        finished = {
            name.split('"')[1]: int(value) for name, value in values.items() if name.startswith("martlet_finished")}
        frames = int(values["martlet_frames_total"])
        descriptors = len(os.listdir(f"/proc/{server.process.pid}/fd")) if os.path.isdir("/proc") else None
        threads = len(os.listdir(f"/proc/{server.process.pid}/task")) if os.path.isdir("/proc") else None
    except OSError as error:
        print(f"the server is gone: {error}; status {server.process.poll()}", file=sys.stderr)
        print("\n".join(server.errors[-20:]), file=sys.stderr)
        return 1
    server.process.terminate()
    status = server.process.wait(60)
    growth = 100 * (max(memory[2:]) - memory[1]) / memory[1] if len(memory) > 2 else 0.0
    passed = not problems and not server.errors and status == 0 and growth <= options.growth
    report = {
        "requests": len(requests), "clients": options.clients, "seed": options.seed, "results": results,
        "wrong": problems[:50], "server_finished": finished, "refused_and_repeated": refused, "frames": frames,
        "memory_bytes": memory, "memory_growth_percent": round(growth, 2), "open_files_at_end": descriptors,
        "threads_at_end": threads, "log": server.errors[:50], "exit_status": status,
        "seconds": round(time.monotonic() - begin, 1), "pass": passed,
    }
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        for name, counts in sorted(results.items()):
            print(f"{name:18} " + ", ".join(f"{count} {word}" for word, count in sorted(counts.items())))
        print(f"server: {finished}, {refused} refused and repeated, {frames} frames, {descriptors} open files, {threads} threads")
        print("memory MB: " + " ".join(f"{value / 1e6:.1f}" for value in memory) + f"; growth {growth:.1f} %")
        for problem in problems[:20] + server.errors[:20]:
            print("WRONG " + problem)
        print(f"{len(requests)} requests in {report['seconds']} s: {'pass' if passed else 'FAILED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
