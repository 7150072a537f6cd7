/// A question about the engine that one command answers: what is set, what is run, what is read, what must hold.
public struct RunbookProcedure: Sendable {
    /// `q31` and so on.
    public let id: String
    /// What it asks.
    public let question: String
    /// The same runs under different switches.
    public let arms: [Arm]
    /// Ids of the texts; every arm speaks each of them.
    public var texts = ["long_03"]
    /// Runs of each arm and text.
    public var runs = 10
    /// Further figures in the table, beside TTFA, RTF, hashes and failures.
    public var reads: [Reading] = []
    /// What must hold.
    public let criteria: [Criterion]
    /// Whether the arms take turns, run by run, so that what else the machine does meets them alike.
    public var takesTurns = false

    /// The same runs under other switches.
    public struct Arm: Sendable {
        /// Names it.
        public let name: String
        /// What is set; all else is as the engine has it by itself.
        public let switches: [RunbookSwitch]
        /// What is run.
        public var work = Work.speak
        /// What the old stack measured with these switches.
        public var before: String?
    }

    /// What an arm runs.
    public enum Work: String, Sendable {
        /// A request through the engine.
        case speak
        /// Codes without a decoder.
        case codesOnly = "codes_only"
        /// Decoding of codes that were made before, without generation.
        case replay
    }

    /// A figure that a procedure reads.
    public enum Reading: Sendable {
        /// `code_ms` of all frames, and `decode_first_ms` of the first packet.
        case stages
        /// `queue_wait_ms`, `decode_calls`, `codes_frames_max`, `pcm_samples_total`, `pcm_samples_max`.
        case packetTrace
        /// The longest wait between two packets.
        case longestGap
        /// Milliseconds in which generation and decoding ran at once.
        case overlap
        /// `samples_total`, `samples_expected`, `bad_len_calls`, `zero_calls`, `decode_ms_p50`.
        case samples
        /// `first_packet_ms`, `total_ms`, `frame_ms`.
        case generation
        /// The first step whose best two choices differ, or whose logits do in any bit.
        case firstLogitStep
        /// What computes: device, instruction set, threads, weights, sums.
        case backEnd
    }

    /// What must hold.
    public enum Criterion: Sendable, Equatable {
        /// `hash_unique` is 1 in every arm, for the first packet too, and over all arms of a text; no run fails.
        case equalRuns
        /// The first audio comes within the limit on half of the runs.
        case firstAudioWithinLimit
        /// An arm's first audio comes before another's on half of the runs.
        case firstAudio(of: String, before: String)
        /// No logit of the recorded steps differs.
        case equalLogits
        /// All samples of every frame come, in calls of the right length.
        case allSamples
        /// What computes has a name.
        case backEndIsNamed
    }
}

extension RunbookProcedure {
    /// All procedures, in the runbook's order.
    public static let all: [RunbookProcedure] = [
        RunbookProcedure(
            id: "q31", question: "How soon is the first audio without overlap?",
            arms: [
                Arm(
                    name: "packet 4", switches: [.process(0), .packet(4)],
                    before: "TTFA P50 660 ms, hash_unique 1 of 30, RTF 1.57")
            ], reads: [.stages], criteria: [.equalRuns, .firstAudioWithinLimit]),
        RunbookProcedure(
            id: "q32", question: "Do smaller packets reach 350 ms?",
            arms: [
                Arm(
                    name: "packet 2", switches: [.process(0), .packet(2)],
                    before: "TTFA P50 350 ms, P95 401 ms, hash_unique 1, RTF 1.56"),
                Arm(
                    name: "packet 1", switches: [.process(0), .packet(1)],
                    before: "TTFA P50 40 s, hash_unique 23, 555 samples short"),
            ], reads: [.stages, .samples], criteria: [.equalRuns, .allSamples, .firstAudioWithinLimit]),
        RunbookProcedure(
            id: "q33", question: "Is overlap stable, at once (A) and after the first packet (B)?",
            arms: [
                Arm(
                    name: "A: at once", switches: [.process(1), .sync(.none), .packet(4), .prefillPackets(0)],
                    before: "TTFA P50 652 ms, hash_unique 25, drift from frame 0"),
                Arm(
                    name: "B: after packet 1", switches: [.process(1), .sync(.none), .packet(4), .prefillPackets(1)],
                    before: "TTFA P50 460 ms, hash_unique 30 of 30, drift from frame 8"),
            ], runs: 30, reads: [.overlap], criteria: [.equalRuns]),
        RunbookProcedure(
            id: "q34", question: "Which stage of the decoder makes the codes drift?",
            arms: [
                Arm(name: "whole decoder", switches: [.process(1), .sync(.none), .packet(4)]),
                Arm(
                    name: "pre_transformer",
                    switches: [.process(1), .sync(.none), .packet(4), .dummyDecoder(.preTransformerOnly)]),
                Arm(
                    name: "conv_only",
                    switches: [.process(1), .sync(.none), .packet(4), .dummyDecoder(.convolutionsOnly)]),
            ], criteria: [.equalRuns]),
        RunbookProcedure(
            id: "q35", question: "Does precision matter?",
            arms: [
                Arm(name: "D0", switches: [.sync(.none), .packet(4), .codegenFP32(0), .decoderFP32(0)]),
                Arm(name: "D1: codegen", switches: [.sync(.none), .packet(4), .codegenFP32(1), .decoderFP32(0)]),
                Arm(name: "D2: decoder", switches: [.sync(.none), .packet(4), .codegenFP32(0), .decoderFP32(1)]),
                Arm(name: "D3: both", switches: [.sync(.none), .packet(4), .codegenFP32(1), .decoderFP32(1)]),
            ], runs: 20, criteria: [.equalRuns]),
        RunbookProcedure(
            id: "q36", question: "At which step do the logits of two equal requests part?",
            arms: [Arm(name: "top 2, steps 0 to 100", switches: [.sync(.none), .packet(4), .topK(2)])],
            runs: 2, reads: [.firstLogitStep], criteria: [.equalRuns, .equalLogits]),
        RunbookProcedure(
            id: "q37", question: "Do the back end's flags matter?",
            arms: [
                Arm(name: "as it is", switches: [.sync(.none), .packet(4)]),
                Arm(name: "benchmark off", switches: [.sync(.none), .packet(4), .cudnnBenchmark(0)]),
                Arm(name: "deterministic", switches: [.sync(.none), .packet(4), .cudnnDeterministic(1)]),
                Arm(name: "no TF32", switches: [.sync(.none), .packet(4), .cudnnTF32(0), .matmulTF32(0)]),
            ], criteria: [.equalRuns]),
        RunbookProcedure(
            id: "q37.1", question: "What back end is it?",
            arms: [Arm(name: "trace", switches: [.sync(.none), .packet(4), .cudnnTrace(1)])],
            runs: 1, reads: [.backEnd], criteria: [.backEndIsNamed]),
        RunbookProcedure(
            id: "q38", question: "Is it the device (a) or the convolutions (b)?",
            arms: [
                Arm(name: "as it is", switches: [.process(1), .sync(.none), .packet(4)]),
                Arm(
                    name: "a: decoder on the CPU",
                    switches: [.process(1), .sync(.none), .packet(4), .decoderDevice("cpu")]),
                Arm(name: "b: noop", switches: [.process(1), .sync(.none), .packet(4), .dummyDecoder(.none)]),
            ], criteria: [.equalRuns]),
        RunbookProcedure(
            id: "q39", question: "Does a full synchronisation remove drift?",
            arms: [Arm(name: "sync", switches: [.process(0), .packet(4), .sync(.sync)])],
            reads: [.overlap], criteria: [.equalRuns]),
        RunbookProcedure(
            id: "q39b", question: "Does an event for each packet remove drift?",
            arms: [
                Arm(
                    name: "event", switches: [.process(0), .packet(4), .sync(.event)],
                    before: "TTFA P50 621 ms, hash_unique 1, RTF 1.43")
            ], reads: [.overlap], criteria: [.equalRuns]),
        RunbookProcedure(
            id: "phase", question: "Is overlap kept, and is drift gone?",
            arms: [
                Arm(
                    name: "event", switches: [.process(0), .codegenBlocking(0), .packet(4), .sync(.event)],
                    before: "TTFA P50 621 ms, hash_unique 1, RTF 1.43"),
                Arm(name: "phase", switches: [.process(0), .codegenBlocking(0), .packet(4), .sync(.phase)]),
            ], texts: ["long_03", "short_01"], reads: [.overlap],
            criteria: [.equalRuns, .firstAudio(of: "phase", before: "event")], takesTurns: true),
        RunbookProcedure(
            id: "q40", question: "What does decoding less often change?",
            arms: [
                Arm(name: "every packet", switches: [.sync(.none), .packet(4), .decodeEvery(1)]),
                Arm(name: "every 2", switches: [.sync(.none), .packet(4), .decodeEvery(2)]),
            ], criteria: [.equalRuns]),
        RunbookProcedure(
            id: "q41", question: "What stalls at packet 1?",
            arms: [
                Arm(
                    name: "packet 1", switches: [.process(0), .packet(1), .packetTrace(1)],
                    before: "TTFA P50 40 s, hash_unique 23, 555 samples short")
            ], reads: [.packetTrace, .longestGap], criteria: [.equalRuns, .allSamples]),
        RunbookProcedure(
            id: "q42", question: "Is it generation?",
            arms: [
                Arm(name: "whole engine", switches: [.packet(1)]),
                Arm(name: "codes only", switches: [.packet(1)], work: .codesOnly),
            ], runs: 5, reads: [.generation], criteria: [.equalRuns]),
        RunbookProcedure(
            id: "q43", question: "Is it decoding?",
            arms: [
                Arm(name: "packet 1", switches: [.packet(1)], work: .replay),
                Arm(name: "packet 4", switches: [.packet(4)], work: .replay),
                Arm(name: "packet 4, windowed", switches: [.packet(4), .windowed(leftContext: 25)], work: .replay),
            ], runs: 3, reads: [.samples], criteria: [.allSamples]),
        RunbookProcedure(
            id: "accept", question: "Is the engine accepted: 10 equal runs, and first audio before event sync's?",
            arms: [
                Arm(
                    name: "event", switches: [.process(0), .codegenBlocking(0), .packet(2), .sync(.event)],
                    before: "about 350 ms is asked for; TTFA P95 244 ms with CUDA graphs"),
                Arm(name: "phase", switches: [.process(0), .codegenBlocking(0), .packet(2), .sync(.phase)]),
            ], criteria: [.equalRuns, .firstAudio(of: "phase", before: "event"), .firstAudioWithinLimit],
            takesTurns: true),
    ]

    /// Finds procedures by their ids; `all` is all of them.
    public static func named(_ ids: [String]) throws(ExperimentError) -> [RunbookProcedure] {
        var found: [RunbookProcedure] = []
        for id in ids {
            if id.lowercased() == "all" { return all }
            guard let procedure = all.first(where: { $0.id == id.lowercased() }) else {
                throw .badSetting(
                    "there is no procedure '\(id)'; there are \(all.map(\.id).joined(separator: ", ")) and all")
            }
            found.append(procedure)
        }
        return found
    }
}

extension RunbookProcedure.Criterion {
    /// What must hold, in words.
    public var words: String {
        switch self {
        case .equalRuns: "hash_unique = 1 in and over all arms, first_diff_frame = -1, fail_count = 0"
        case .firstAudioWithinLimit: "TTFA P50 at most 350 ms"
        case .firstAudio(let arm, let other): "TTFA P50 of \(arm) before \(other)'s"
        case .equalLogits: "no logit differs"
        case .backEndIsNamed: "the back end has a name"
        case .allSamples: "samples_total = samples_expected, bad_len_calls = 0"
        }
    }
}
