import Foundation
import Qwen3TTS
@testable import SpeechEngine
import Tensors
import TestSupport
import Testing

/// Generation in a process of its own: the same bytes, and nothing is lost or left when it dies.
@Suite(.serialized) struct WorkerTests {
    private func model(_ fixture: Fixture = .customVoice) throws -> SpeechModel {
        try SpeechModel(directory: fixture.directory, compute: Compute(threads: 2))
    }

    private func options(_ mode: SyncMode = .sync) -> EngineOptions {
        var options = EngineOptions()
        options.workerProcess = true
        options.workerExecutable = Program.executable.path
        options.syncMode = mode
        // A test may come to read late.
        options.readerTimeout = 3600
        return options
    }

    private func request(frames: Int) -> SpeechRequest {
        var request = SpeechRequest(text: "tea for two, they say")
        // All bits of the seed reach the worker.
        request.sampling.seed = .max - 5
        request.sampling.temperature = 0.7
        request.sampling.maxNewTokens = frames + 1
        return request
    }

    /// Processes that this one, or another, has started as workers, by their command line.
    private func workers(
        of own: pid_t = ProcessInfo.processInfo.processIdentifier, besides others: [pid_t] = []
    ) -> [pid_t] {
        return (try? FileManager.default.contentsOfDirectory(atPath: "/proc"))?.compactMap { pid_t($0) }.filter { pid in
            guard let status = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
                let line = try? String(contentsOfFile: "/proc/\(pid)/cmdline", encoding: .utf8)
            else { return false }
            // After the name in brackets: state, parent.
            let fields = status.split(separator: ")").last?.split(separator: " ") ?? []
            return line.hasPrefix("martlet\0worker\0") && fields.count > 1 && fields[1] == "\(own)"
                && !others.contains(pid)
        } ?? []
    }

    @Test func theSameBytesAsInOneProcess() async throws {
        let model = try model()
        let here = await SpokenResult(try SpeechEngine(model: model).speak(request(frames: 7)))
        for mode in [SyncMode.sync, .event, .none] {
            let engine = SpeechEngine(model: model, options: options(mode))
            for packets in [PacketPolicy.fixed(1), .growing] {
                let there = await SpokenResult(try engine.speak(request(frames: 7), packets: packets))
                #expect(there.codes == here.codes, "\(mode)")
                #expect(there.summary?.fingerprint == here.summary?.fingerprint, "\(mode)")
                #expect(there.summary?.finishReason == here.summary?.finishReason, "\(mode)")
            }
        }
    }

    @Test func textInPiecesAndAClonedVoiceReachIt() async throws {
        let model = try model(.base)
        let talker = model.configuration.talker
        var request = request(frames: 12)
        request.layout = .streaming
        request.voice = .clone(
            ClonePrompt(
                speakerVector: (0..<talker.shape.hidden).map { 1 / Float($0 + 3) },
                codes: (0..<(5 * talker.codeGroups)).map { Int32($0 * 37 % 64) }, codeGroups: talker.codeGroups,
                referenceText: "So it goes.", modelIdentity: ""))
        let here = await SpokenResult(try SpeechEngine(model: model).speak(request))
        let engine = SpeechEngine(model: model, options: options(.none))
        var open = request
        (open.text, open.isComplete) = ("", false)
        let stream = try engine.speak(open, packets: .fixed(2))
        let reader = Task { await SpokenResult(stream) }
        for character in request.text {
            stream.append(String(character))
            await Task.yield()
        }
        stream.completeText()
        let there = await reader.value
        #expect(there.codes == here.codes)
        #expect(there.summary?.fingerprint == here.summary?.fingerprint)
    }

    /// Of a voice that tells: whole texts and texts in pieces.
    @Test func itTellsWhenWordsBegin() async throws {
        let model = try SpeechModel(directory: Fixture.shippedVoice, compute: Compute(threads: 2))
        var whole = SpeechRequest(text: "We walked home.")
        whole.sampling.greedy = true
        var open = whole
        (open.text, open.isComplete) = ("We wal", false)
        var spoken: [[SpokenWord]] = []
        for isWorker in [false, true] {
            var options = options()
            options.workerProcess = isWorker
            // Without the decoder, which has no say in it.
            options.decoderStages = .none
            let engine = SpeechEngine(model: model, options: options)
            let result = await SpokenResult(try engine.speak(whole, packets: .fixed(2)))
            #expect(result.packets.flatMap { $0.words ?? [] } == result.summary?.words)
            spoken.append(try #require(result.summary).words)
            let stream = try engine.speak(open)
            for text in ["ked ho", "me."] { stream.append(text) }
            stream.completeText()
            spoken.append(try #require(await SpokenResult(stream).summary).words)
        }
        #expect(spoken[0].map(\.word) == ["We", "walked", "home."] && spoken[2] == spoken[0])
        #expect(spoken[1].map(\.word) == spoken[0].map(\.word) && spoken[3] == spoken[1])
    }

    @Test func whenItDiesItsUtterancesEndAndTheNextOnesGoOn() async throws {
        let model = try model()
        let here = await SpokenResult(try SpeechEngine(model: model).speak(request(frames: 6)))
        var options = options()
        // It cannot end before it is read.
        options.maxUnreadFrames = 2
        // An engine of another test may still be about to end.
        let others = workers()
        let engine = SpeechEngine(model: model, options: options)
        let stream = try engine.speak(request(frames: 2000), packets: .fixed(1))
        var before = 0
        var iterator = stream.makeAsyncIterator()
        while case .packet = await iterator.next(), before < 2 { before += 1 }
        let victims = workers(besides: others)
        #expect(victims.count == 1)
        for pid in victims {
            // Its own process group.
            #expect(getpgid(pid) == pid)
            kill(pid, SIGKILL)
        }
        let lost = await SpokenResult(stream)
        #expect(lost.summary?.finishReason == .workerLost)
        #expect(lost.summary?.warnings.contains { $0.contains("signal 9") } == true)

        let next = await SpokenResult(try engine.speak(request(frames: 6)))
        #expect(next.summary?.fingerprint == here.summary?.fingerprint)
        // Published before the next one's first audio.
        #expect(engine.statistics.finished[.workerLost] == 1)
        #expect(engine.statistics.workerRestarts == 1)

        // Killed while nobody has heard anything, it costs nobody anything, whatever it was told before.
        let doomed = workers(besides: others)
        for pid in doomed { kill(pid, SIGSTOP) }
        async let last = SpokenResult(try engine.speak(request(frames: 6)))
        try await Task.sleep(for: .milliseconds(100))
        for pid in doomed { kill(pid, SIGKILL) }
        #expect(try await last.summary?.fingerprint == here.summary?.fingerprint)
        #expect(engine.statistics.workerRestarts == 2)
    }

    /// A process that is stopped is there and says nothing.
    @Test func whenItHangsItIsKilledAsIfItHadDied() async throws {
        let model = try model()
        let here = await SpokenResult(try SpeechEngine(model: model).speak(request(frames: 6)))
        var options = options()
        options.maxUnreadFrames = 2
        options.workerTimeout = 5
        let others = workers()
        let engine = SpeechEngine(model: model, options: options)
        let stream = try engine.speak(request(frames: 2000), packets: .fixed(1))
        var iterator = stream.makeAsyncIterator()
        guard case .packet = await iterator.next() else {
            Issue.record("no packet")
            return
        }
        let hung = workers(besides: others)
        for pid in hung { kill(pid, SIGSTOP) }
        let lost = await SpokenResult(stream)
        #expect(lost.summary?.finishReason == .workerLost)
        #expect(lost.summary?.warnings.contains { $0.contains("not answer within 5.0 s") } == true)
        #expect(hung.count == 1 && hung.allSatisfy(isDead))

        let next = await SpokenResult(try engine.speak(request(frames: 6)))
        #expect(next.summary?.fingerprint == here.summary?.fingerprint)
        #expect(engine.statistics.workerRestarts > 0)
    }

    @Test func oneThatNeverGetsReadyIsKilled() async throws {
        let script = FileManager.default.temporaryDirectory.appending(path: "martlet-hangs-\(UUID()).sh")
        try "#!/bin/sh\nexec sleep 3600\n".write(to: script, atomically: true, encoding: .utf8)
        defer { try? FileManager.default.removeItem(at: script) }
        try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: script.path)
        var options = options()
        options.workerExecutable = script.path
        options.workerLoadTimeout = 0.2
        let engine = SpeechEngine(model: try model(), options: options)
        for _ in 0..<2 {
            let result = await SpokenResult(try engine.speak(request(frames: 3)))
            #expect(result.summary?.finishReason == .workerLost)
            #expect(result.summary?.warnings.last?.contains("not get ready within 0.2 s") == true)
        }
    }

    /// Neither saying nor hearing holds anybody up for ever.
    @Test func aChannelWithoutAnotherSideTimesOut() throws {
        let (ours, theirs) = try #require(WorkerChannel.makePair())
        defer { close(theirs) }
        let channel = WorkerChannel(descriptor: ours)
        #expect(throws: ChannelError.timedOut) { _ = try channel.receive(String.self, within: 0.05) }
        // More than it holds.
        #expect(throws: ChannelError.timedOut) {
            try channel.send(String(repeating: "tea", count: 4 << 20), within: 0.05)
        }
    }

    private func isDead(_ pid: pid_t) -> Bool {
        let status = (try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)) ?? ""
        return status.isEmpty || status.contains(") Z ")
    }

    @Test func cancelsReachIt() async throws {
        let engine = SpeechEngine(model: try model(), options: options(.none))
        for _ in 0..<3 {
            let stream = try engine.speak(request(frames: 2000), packets: .fixed(1))
            for await _ in stream { break }
            stream.cancel()
            let rest = await SpokenResult(stream)
            #expect(rest.summary?.finishReason == .cancelled)
        }
        let whole = await SpokenResult(try engine.speak(request(frames: 3)))
        #expect(whole.summary?.frames ?? 0 > 0)
    }

    @Test func aProgramThatDoesNotRunSaysSo() async throws {
        for program in ["/nonexistent/martlet", "/bin/false"] {
            var options = options()
            options.workerExecutable = program
            let engine = SpeechEngine(model: try model(), options: options)
            let result = await SpokenResult(try engine.speak(request(frames: 3)))
            #expect(result.summary?.finishReason == .workerLost)
            #expect(result.summary?.warnings.last?.contains("worker process") == true)
        }
    }

    /// What is disturbed and recorded there is what would be here, to the bit.
    @Test func logitsAreTappedThere() async throws {
        let model = try model()
        let there = SpeechEngine(model: model, options: options())
        func choices(_ engine: SpeechEngine, _ drift: InjectedDrift?) async throws -> [CodeChoices] {
            var order = LogitTap.Order(model.configuration.talker)
            order.drift = drift
            order.choices = TopChoicesOptions()
            order.choices?.frames = 1...3
            let tap = LogitTap(order)
            var request = request(frames: 5)
            request.logitTap = tap
            #expect(await SpokenResult(try engine.speak(request)).summary?.frames == 5)
            return tap.choices
        }
        let plain = try await choices(SpeechEngine(model: model), nil)
        #expect(plain.map(\.frame) == (1...3).flatMap { [Int](repeating: $0, count: model.codeGroups) })
        #expect(try await choices(there, nil) == plain)
        for isTiny in [false, true] {
            let drift = InjectedDrift(frame: 2, codebook: 5, isTiny: isTiny)
            let disturbed = try await choices(there, drift)
            #expect(try await choices(SpeechEngine(model: model), drift) == disturbed)
            let first = zip(plain, disturbed).first { $0 != $1 }
            #expect(first?.0.frame == 2 && first?.0.codebook == 5)
        }
    }

    @Test func itEndsWithItsEngine() async throws {
        do {
            let engine = SpeechEngine(model: try model(), options: options())
            _ = await SpokenResult(try engine.speak(request(frames: 2)))
            #expect(!workers().isEmpty)
        }
        while !workers().isEmpty { try await Task.sleep(for: .milliseconds(5)) }
    }

    /// However the engine's process ends.
    @Test func itEndsWhenItsParentIsKilled() async throws {
        let parent = Process()
        parent.executableURL = URL(fileURLWithPath: Program.executable.path)
        parent.arguments = ["bench", "ttfa", "--model", Fixture.customVoice.directory, "--count", "1000000"]
        parent.environment = ["MARTLET_WORKER_PROCESS": "1"]
        (parent.standardOutput, parent.standardError) = (FileHandle.nullDevice, FileHandle.nullDevice)
        try parent.run()
        var found: [pid_t] = []
        while found.isEmpty, parent.isRunning {
            found = workers(of: parent.processIdentifier)
            try await Task.sleep(for: .milliseconds(5))
        }
        #expect(found.count == 1)
        kill(parent.processIdentifier, SIGKILL)
        parent.waitUntilExit()
        while found.contains(where: { !isDead($0) }) { try await Task.sleep(for: .milliseconds(5)) }
    }

    @Test func theRingKeepsOrderAndBounds() throws {
        let file = try #require(CodesRing.makeFile(capacity: 8))
        let writer = try #require(CodesRing(file: file, capacity: 8))
        let reader = try #require(CodesRing(file: file, capacity: 8))
        #expect(CodesRing(file: file, capacity: 1 << 20) == nil)
        close(file)
        var sent: Int32 = 0, seen: Int32 = 0
        for count in [3, 5, 8, 1, 7, 2] as [Int32] {
            #expect(writer.write(sent..<(sent + count)))
            sent += count
            #expect(!writer.write([Int32](repeating: 0, count: 9 - Int(count))))
            #expect(reader.take(Int(count) + 1) == nil)
            #expect(reader.take(Int(count)) == Array(seen..<(seen + count)))
            seen += count
        }
    }
}
