import Foundation
import Qwen3TTS
@testable import SpeechEngine
import Tensors
import TestSupport
import Testing

/// The engine on a GPU: the emulated one, whose kernels are the real ones' text.
@Suite(.serialized) struct CUDAEngineTests {
    private func model(_ fixture: Fixture = .customVoice) throws -> SpeechModel {
        try SpeechModel(directory: fixture.directory, compute: Compute(threads: 1), stages: [])
    }

    private func host(
        _ card: EmulatedCard, _ fixture: Fixture = .customVoice, slots: Int = 8, parts: SpeechModel.Stages = .all
    ) throws -> CUDAHost {
        try CUDAHost(
            directory: fixture.directory, device: card.index, slots: slots, parts: parts, precision: .exact,
            driver: EmulatedCard.driver)
    }

    private func options(_ host: CUDAHost, _ mode: SyncMode = .sync) -> EngineOptions {
        var options = EngineOptions()
        (options.generationGPU, options.decodingGPU) = (host, host)
        options.syncMode = mode
        return options
    }

    private func request(_ text: String = "tea for two, they say", frames: Int, seed: UInt64 = 7) -> SpeechRequest {
        var request = SpeechRequest(text: text)
        request.sampling.seed = seed
        request.sampling.maxNewTokens = frames + 1
        return request
    }

    /// Greedy codes of a model whose margins are wide are those of the CPU, and so is the audio, nearly.
    @Test func itSpeaksWhatTheCPUSpeaks() async throws {
        var request = request(frames: 6)
        request.sampling.greedy = true
        let cpu = try SpeechModel(directory: Fixture.customVoice.directory, compute: Compute(threads: 1))
        let there = await SpokenResult(try SpeechEngine(model: cpu).speak(request))
        let engine = SpeechEngine(model: try model(), options: options(try host(EmulatedCard(multiprocessors: 2))))
        let here = await SpokenResult(try engine.speak(request, packets: .fixed(2)))
        #expect(here.summary?.finishReason == there.summary?.finishReason)
        #expect(here.codes == there.codes)
        #expect(here.samples.count == there.samples.count)
        let worst = zip(here.samples, there.samples).reduce(Float(0)) { max($0, ($1.0 - $1.1).magnitude) }
        #expect(worst < 1e-3)
        #expect((here.summary?.stages.talker ?? 0) > 0 && (here.summary?.stages.decoder ?? 0) > 0)
    }

    /// The alignment head looks where it does on the CPU, at prompt and steps, in whole texts and in pieces.
    @Test func itTellsWhatEachFrameSpeaks() throws {
        let fixture = try Fixture.customVoice.withAlignmentHead(layer: 1, head: 1)
        let cpu = try SpeechModel(directory: fixture.directory, compute: Compute(threads: 1))
        let card = try host(EmulatedCard(multiprocessors: 2), fixture)
        let generators: [any CodeGenerator] = [
            ModelGenerator(cpu), CUDAGenerator(card, configuration: cpu.configuration, runaway: nil),
        ]
        var request = request(frames: 6)
        request.sampling.greedy = true
        var places: [[Int32]] = []
        for generator in generators {
            var whole = request
            whole.layout = .nonStreaming
            var open = request
            (open.text, open.isComplete) = ("tea for", false)
            let streams = try [whole, open].map { generator.begin($0, try cpu.prepare($0)) }
            try streams[1].append(" two, they")
            var times = StageTimes()
            for step in 0..<8 {
                if step == 2 {
                    try streams[1].append(" say")
                    try streams[1].completeText()
                }
                _ = generator.step(streams.filter { $0.finishReason == nil }, times: &times)
            }
            for stream in streams {
                #expect(stream.places.count == stream.frames && stream.frames == 6)
                #expect(stream.places.allSatisfy { stream.textIDs.indices.contains(Int($0)) })
                places.append(stream.places)
            }
        }
        #expect(places[0] == places[2] && places[1] == places[3])
        #expect(Set(places[0]).count > 1)
    }

    /// The worker process's side on a card that has no decoder: the codes of an engine that generates by itself; and the
    /// engine's side, on a card that has nothing else.
    @Test func aWorkerGeneratesOnACard() async throws {
        let model = try model()
        let alone = await SpokenResult(
            try SpeechEngine(model: model, options: options(try host(EmulatedCard(multiprocessors: 2)))).speak(
                request(frames: 3), packets: .fixed(1)))
        let card = EmulatedCard(multiprocessors: 2)
        let generating = try host(card, parts: .generation)
        let (own, its) = try #require(WorkerChannel.makePair())
        let groups = model.codeGroups
        let file = try #require(CodesRing.makeFile(capacity: 4 * groups))
        let ring = try #require(CodesRing(file: file, capacity: 4 * groups))
        let thread = Thread {
            guard let itsRing = CodesRing(file: file, capacity: 4 * groups) else { return }
            let generator = CUDAGenerator(generating, configuration: model.configuration, runaway: nil)
            try? SpeechWorker.serve(model, generator, WorkerChannel(descriptor: its), itsRing)
        }
        thread.start()
        let channel = WorkerChannel(descriptor: own)
        try channel.send(WorkerMessage.begin(5, WorkerRequest(request(frames: 3))))
        func room(_ id: UInt64) throws -> Bool {
            try channel.send(WorkerMessage.makesRoom(id))
            guard case .room(let isThere) = try channel.receive(WorkerReply.self) else { return false }
            return isThere
        }
        #expect(try room(5))
        try channel.send(WorkerMessage.begin(6, WorkerRequest(request(frames: 3))))
        card.setMemory(generating.memoryBytes)
        #expect(try !room(6))
        card.setMemory(8 << 30)
        #expect(try room(6))
        var codes: [Int32] = []
        var reason: FinishReason?
        while reason == nil {
            try channel.send(WorkerMessage.step([5]))
            guard case .stepped(let steps, _) = try channel.receive(WorkerReply.self) else { break }
            if steps[0].result == .frame { codes += try #require(ring.take(groups)) }
            reason = steps[0].finishReason
        }
        #expect(codes == alone.codes && reason == alone.summary?.finishReason)
        channel.hangUp()

        let decoding = try host(EmulatedCard(multiprocessors: 2), parts: .decoding)
        #expect(decoding.memoryBytes < generating.memoryBytes)
        var options = EngineOptions()
        options.decodingGPU = decoding
        let player = CodesPlayer(model, options: options)
        let samples = try (0..<3).flatMap {
            try player.decode(Array(codes[($0 * groups)..<(($0 + 1) * groups)]))
        }
        #expect(samples == alone.samples)
        options.decoderStages = .convolutionsOnly
        #expect(try CodesPlayer(model, options: options).decode(codes) == samples.map { _ in 0 })
    }

    /// Nobody but the decoder has a card that only decodes loaded again.
    @Test func aCardThatOnlyDecodesComesBack() async throws {
        let model = try SpeechModel(directory: Fixture.customVoice.directory, compute: Compute(threads: 1))
        let card = EmulatedCard(multiprocessors: 2)
        var options = EngineOptions()
        options.decodingGPU = try host(card, parts: .decoding)
        let engine = SpeechEngine(model: model, options: options)
        let before = await SpokenResult(try engine.speak(request(frames: 3)))
        card.failLaunch(after: 3, code: 700)
        let lost = await SpokenResult(try engine.speak(request(frames: 3)))
        #expect(lost.summary?.finishReason == .deviceLost)
        let after = await SpokenResult(try engine.speak(request(frames: 3)))
        #expect(after.summary?.fingerprint == before.summary?.fingerprint, "\(after.summary?.warnings ?? [])")
    }

    /// Packets, neighbours, overlap, text in pieces and the order in which the card's threads run leave every bit alone.
    @Test func sameBytes() async throws {
        let model = try model()
        let alone = await SpokenResult(
            try SpeechEngine(model: model, options: options(try host(EmulatedCard(multiprocessors: 2)))).speak(
                request(frames: 5), packets: .fixed(1)))
        #expect(alone.codes.count == 5 * model.codeGroups)
        let other = try host(EmulatedCard(multiprocessors: 3, seed: 9))
        for (mode, packets) in [(SyncMode.event, 2), (.phase, 3), (.none, 1)] {
            let engine = SpeechEngine(model: model, options: options(other, mode))
            #expect(engine.notes.isEmpty)
            let neighbour = try engine.speak(request("no, coffee", frames: 40, seed: 1), packets: .fixed(1))
            let stream = try engine.speak(request(frames: 5), packets: .fixed(packets))
            let among = await SpokenResult(stream)
            neighbour.cancel()
            #expect(among.codes == alone.codes, "\(mode)")
            #expect(among.summary?.fingerprint == alone.summary?.fingerprint, "\(mode)")
            _ = await SpokenResult(neighbour)
        }
    }

    @Test func aClonedVoiceAndTextInPieces() async throws {
        let (model, cpu) = (
            try model(.base), try SpeechModel(directory: Fixture.base.directory, compute: Compute(threads: 1))
        )
        let talker = model.configuration.talker
        var request = request(frames: 4)
        request.sampling.greedy = true
        request.layout = .streaming
        request.voice = .clone(
            ClonePrompt(
                speakerVector: (0..<talker.shape.hidden).map { 1 / Float($0 + 3) },
                codes: (0..<(3 * talker.codeGroups)).map { Int32($0 * 37 % 64) }, codeGroups: talker.codeGroups,
                referenceText: "So it goes.", modelIdentity: ""))
        let there = await SpokenResult(try SpeechEngine(model: cpu).speak(request))
        let engine = SpeechEngine(
            model: model, options: options(try host(EmulatedCard(multiprocessors: 2), .base)))
        let text = request.text
        (request.text, request.isComplete) = ("", false)
        let stream = try engine.speak(request, packets: .fixed(2))
        for character in text { stream.append(String(character)) }
        stream.completeText()
        let here = await SpokenResult(stream)
        #expect(here.codes == there.codes)
        let worst = zip(here.samples, there.samples).reduce(Float(0)) { max($0, ($1.0 - $1.1).magnitude) }
        #expect(here.samples.count == there.samples.count && worst < 1e-3)
    }

    /// A disturbed logit changes the code there, and nothing before it.
    @Test func disturbedLogitsChangeTheirCode() async throws {
        let model = try model()
        let host = try host(EmulatedCard(multiprocessors: 2))
        let engine = SpeechEngine(model: model, options: options(host))
        let calm = await SpokenResult(try engine.speak(request(frames: 4)))
        for (frame, codebook) in [(1, 0), (2, 5)] {
            var order = LogitTap.Order(model.configuration.talker)
            order.drift = InjectedDrift(frame: frame, codebook: codebook, isTiny: false)
            order.choices = TopChoicesOptions()
            var request = request(frames: 4)
            request.logitTap = LogitTap(order)
            let disturbed = await SpokenResult(try engine.speak(request))
            let first = zip(calm.codes, disturbed.codes).enumerated().first { $0.element.0 != $0.element.1 }?.offset
            #expect(first == frame * model.codeGroups + codebook)
            // And code 0 of the frame that the limit drops.
            #expect(request.logitTap?.choices.count == 4 * model.codeGroups + 1)
        }
    }

    /// What was on the card ends with its own reason, and the next request finds the model loaded again.
    @Test func afterAStickyErrorItGoesOn() async throws {
        let model = try model()
        let card = EmulatedCard(multiprocessors: 2)
        var options = options(try host(card))
        // They cannot end before they are read.
        options.maxUnreadFrames = 2
        options.readerTimeout = 3600
        let engine = SpeechEngine(model: model, options: options)
        let before = await SpokenResult(try engine.speak(request(frames: 3)))
        let (lost, other) = (
            try engine.speak(request(frames: 200), packets: .fixed(1)),
            try engine.speak(request("no, coffee", frames: 200, seed: 1), packets: .fixed(1))
        )
        var iterator = lost.makeAsyncIterator()
        guard case .packet = await iterator.next() else {
            Issue.record("no audio before the error")
            return
        }
        card.failLaunch(after: 3, code: 700)
        for stream in [lost, other] {
            let end = await SpokenResult(stream).summary
            #expect(end?.finishReason == .deviceLost)
            #expect(end?.warnings.contains { $0.contains("700") || $0.contains("anew") } == true)
        }
        let after = await SpokenResult(try engine.speak(request(frames: 3)))
        #expect(after.summary?.fingerprint == before.summary?.fingerprint, "\(after.summary?.warnings ?? [])")
        #expect(engine.statistics.workerRestarts == 1)
    }

    /// Who does not fit waits, and whoever the memory runs out for ends alone.
    @Test func memoryIsPromisedBeforeItIsUsed() async throws {
        let model = try model()
        let card = EmulatedCard(multiprocessors: 2)
        let host = try host(card, slots: 2)
        let engine = SpeechEngine(model: model, options: options(host))
        let alone = await SpokenResult(try engine.speak(request(frames: 3), packets: .fixed(1)))
        // No room for a page beside what is there: one at a time, on the pages that there are.
        card.setMemory(host.memoryBytes)
        let streams = try (0..<3).map { _ in try engine.speak(request(frames: 3), packets: .fixed(1)) }
        for stream in streams {
            let result = await SpokenResult(stream)
            #expect(result.summary?.fingerprint == alone.summary?.fingerprint)
        }
        let long = await SpokenResult(try engine.speak(request(frames: 60), packets: .fixed(1)))
        #expect(long.summary?.finishReason == .deviceLost)
        #expect(long.summary?.warnings.contains { $0.contains("GPU memory") } == true)
        let again = await SpokenResult(try engine.speak(request(frames: 3), packets: .fixed(1)))
        #expect(again.summary?.fingerprint == alone.summary?.fingerprint, "\(again.summary?.warnings ?? [])")
    }
}
