import Qwen3TTS
import SpeechEngine
import Synchronization
import Tensors
import TestSupport
import Testing

/// Keeps what it is given in memory.
private final class MemoryKeeper: UtteranceKeeper {
    private let state = Mutex<[SpokenUtterance]>([])

    var utterances: [SpokenUtterance] { state.withLock { $0 } }

    func willSpeak(_ request: inout SpeechRequest) {}

    func keep(_ utterance: SpokenUtterance) { state.withLock { $0.append(utterance) } }
}

/// Utterances with a name are kept, however they are made.
@Suite struct KeeperTests {
    private func request(_ text: String) -> SpeechRequest {
        var request = SpeechRequest(text: text)
        request.sampling.maxNewTokens = 5
        return request
    }

    @Test func whatHasANameIsKeptBeforeItsReaderKnowsTheEnd() async throws {
        let keeper = MemoryKeeper()
        var options = EngineOptions()
        options.keeper = keeper
        options.starterCache = StarterCacheLimits()
        let model = try SpeechModel(directory: Fixture.customVoice.directory, compute: Compute(threads: 2))
        let engine = SpeechEngine(model: model, options: options)

        let spoken = await SpokenResult(try engine.speak(request("tea"), packets: .fixed(2), name: .tag("mine")))
        let kept = try #require(keeper.utterances.last)
        #expect(kept.tag == "mine" && kept.packetFrames == 2 && kept.request.text == "tea")
        #expect(kept.codes == spoken.codes && !kept.codes.isEmpty)
        #expect(kept.summary == spoken.summary)

        // Nobody asked for it by name.
        _ = await SpokenResult(try engine.speak(request("tea for one")))
        #expect(keeper.utterances.count == 1)

        // Answered from memory.
        let again = try engine.speak(request("tea"), packets: .fixed(2), name: .numbered("again"))
        #expect(again.tag == "again-\(again.id)")
        _ = await SpokenResult(again)
        #expect(keeper.utterances.count == 2)
        #expect(keeper.utterances.last?.codes == spoken.codes)
        #expect(keeper.utterances.last?.tag == again.tag)

        // Its text comes later.
        var open = request("tea ")
        open.isComplete = false
        let stream = try engine.speak(open, name: .numbered("open"))
        stream.append("for two")
        stream.completeText()
        let late = await SpokenResult(stream)
        #expect(keeper.utterances.last?.request.text == "tea for two")
        #expect(keeper.utterances.last?.codes == late.codes)
        #expect(keeper.utterances.last?.packetFrames == nil)
    }
}
