/// What the runbook's procedures found: `runbook.json`, and all that the HTML report is drawn from.
public struct RunbookReport: Sendable, Codable, Equatable {
    /// What it was measured on.
    public let machine: Machine
    /// The disturbance that was injected; nil for none.
    public let injectedDrift: String?
    /// What held where an arm did not set it.
    public let settings: [String: String]
    /// Procedure by procedure.
    public var procedures: [Procedure]

    enum CodingKeys: String, CodingKey {
        case machine, settings, procedures
        case injectedDrift = "injected_drift"
    }

    /// A report on a machine.
    public init(machine: Machine, injectedDrift: String? = nil, settings: [String: String] = [:]) {
        self.machine = machine
        self.injectedDrift = injectedDrift
        self.settings = settings
        procedures = []
    }

    /// Fails if one procedure does; passes if one passes and none fails.
    public var outcome: Outcome { Outcome(procedures.map(\.outcome)) }
}

extension RunbookReport {
    /// The model and what runs it.
    public struct Machine: Sendable, Codable, Equatable {
        /// Name of the model's folder, its identity, kind and size.
        public var model: String, identity: String?, shape: String
        /// `cpu` or a GPU, its name, instruction set or driver, threads, storage of the weights.
        public var device: String, processor: String, instructionSet: String, threads: Int, weights: String
        /// Processes that wanted a processor when the report began; above the number of processors, times say more
        /// about the other work.
        public var load: Double
        /// Processors.
        public var cores: Int
        /// Whether this build was optimised; times of another one say nothing.
        public var isOptimised: Bool

        enum CodingKeys: String, CodingKey {
            case model, identity, shape, device, processor, threads, weights, load, cores
            case instructionSet = "instruction_set"
            case isOptimised = "optimised_build"
        }
    }

    /// A verdict.
    public enum Outcome: String, Sendable, Codable, Equatable {
        /// What was judged holds.
        case pass
        /// Something does not hold.
        case fail
        /// Nothing could be judged here.
        case notJudged = "not_judged"

        /// For a table.
        public var word: String {
            switch self {
            case .pass: "pass"
            case .fail: "FAIL"
            case .notJudged: "not judged"
            }
        }

        /// Of several together.
        init(_ parts: [Outcome]) {
            self = parts.contains(.fail) ? .fail : parts.contains(.pass) ? .pass : .notJudged
        }
    }

    /// One criterion, judged.
    public struct Finding: Sendable, Codable, Equatable {
        /// Whether it holds.
        public let outcome: Outcome
        /// What was judged, and the figures that say so.
        public let reason: String
    }

    /// One procedure.
    public struct Procedure: Sendable, Codable, Equatable {
        /// `q31` and so on, and the question.
        public let id: String, question: String
        /// Arm by arm.
        public let arms: [Arm]
        /// Which runs agree.
        public let matrix: [MatrixRow]
        /// Where runs part.
        public let pictures: [Picture]
        /// Criterion by criterion.
        public let findings: [Finding]
        /// The verdict.
        public let outcome: Outcome
    }

    /// One arm of a procedure: the same runs under other switches.
    public struct Arm: Sendable, Codable, Equatable {
        /// Names it.
        public let name: String
        /// What is run: `speak`, `codes_only`, `replay`.
        public let work: String
        /// Id of the text.
        public let textID: String
        /// Codec frames of a packet.
        public let packet: Int
        /// The switches set, by the old stack's names.
        public let switches: [String: String]
        /// What a switch does not do on this engine, and what holds instead.
        public let notes: [String]
        /// Why it was not run; nil if it was.
        public let problem: String?
        /// Whether the last run was disturbed.
        public let isDisturbed: Bool
        /// Run by run.
        public let runs: [Run]
        /// Milliseconds to the first audio (codes only: to the first packet's codes; replay: of a call), and
        /// real-time factors.
        public let firstAudio: CodeRuns.Distribution?, realTimeFactor: CodeRuns.Distribution?
        /// Different hashes of all codes, of the first packet's, and of the samples.
        public let hashUnique: Int, firstPacketHashUnique: Int, samplesHashUnique: Int
        /// The first frame at which a run of this arm parts from the arm's first, and the codebook; -1 for none.
        public let firstDiffFrame: Int, firstDiffCodebook: Int
        /// Runs that gave no audio, or ended in another way than by themselves or at their limit.
        public let failCount: Int
        /// What else was read, in order.
        public let readings: [Reading]
        /// What the old stack measured with these switches; nil if it did not.
        public let before: String?

        enum CodingKeys: String, CodingKey {
            case name, work, switches, notes, problem, runs, readings, before
            case isDisturbed = "disturbed"
            case textID = "text_id"
            case packet = "packet_tokens"
            case firstAudio = "ttfa_ms"
            case realTimeFactor = "rtf"
            case hashUnique = "hash_unique"
            case firstPacketHashUnique = "first_packet_hash_unique"
            case samplesHashUnique = "pcm_hash_unique"
            case firstDiffFrame = "first_diff_frame"
            case firstDiffCodebook = "first_diff_codebook"
            case failCount = "fail_count"
        }
    }

    /// A figure with its name.
    public struct Reading: Sendable, Codable, Equatable {
        /// Such as `queue_wait_ms`.
        public let name: String
        /// As it is printed.
        public let value: String
    }

    /// One run of an arm.
    public struct Run: Sendable, Codable, Equatable {
        /// Names it.
        public let tag: String
        /// Whether it gave audio and ended by itself or at its limit.
        public let isGood: Bool
        /// Milliseconds to the first audio and to the end.
        public let firstAudioMs: Double?, totalMs: Double
        /// Milliseconds of code generation, all frames, and of decoding the first packet; nil where there was none.
        public let codeMs: Double?, decodeFirstMs: Double?
        /// Computing time by speaking time.
        public let realTimeFactor: Double?
        /// Frames.
        public let frames: Int
        /// SHA-256 of all codes, of the first packet's, and of the samples.
        public let hash: String, firstPacketHash: String, samplesHash: String?
        /// Packet by packet; empty where none were made.
        public let packets: [Packet]

        enum CodingKeys: String, CodingKey {
            case tag, frames, hash, packets
            case isGood = "ok"
            case firstAudioMs = "ttfa_ms"
            case totalMs = "total_ms"
            case codeMs = "code_ms"
            case decodeFirstMs = "decode_first_ms"
            case realTimeFactor = "rtf"
            case firstPacketHash = "first_packet_hash"
            case samplesHash = "pcm_hash"
        }
    }

    /// When a packet was made, in milliseconds from the request.
    public struct Packet: Sendable, Codable, Equatable {
        /// Its frames.
        public let frames: Int
        /// From the first step for one of its frames to the last; nil where the engine did not say.
        public let generation: [Double]?
        /// From the decoder's start to its end; nil where it was not run, or the engine did not say.
        public let decoding: [Double]?
        /// When, in that, upsampling and convolutions began; nil where the engine did not say.
        public let convolutions: Double?
        /// Whether they held generation up.
        public let convolvesAlone: Bool
        /// When its reader had it.
        public let arrival: Double
    }

    /// A run in the matrix of hashes. Runs of one text whose numbers are equal have equal codes.
    public struct MatrixRow: Sendable, Codable, Equatable {
        /// The run, its arm and text.
        public let tag: String, arm: String, textID: String
        /// The number of its hash of all codes, and of its first packet's.
        public let whole: Int, firstPacket: Int

        enum CodingKeys: String, CodingKey {
            case tag, arm, whole
            case textID = "text_id"
            case firstPacket = "first_packet"
        }
    }

    /// Where two runs part: every frame and codebook that differs.
    public struct Picture: Sendable, Codable, Equatable {
        /// The run that is compared with, the run that differs, and its arm.
        public let reference: String, tag: String, arm: String
        /// Frames of the longer run, and codes of a frame.
        public let frames: Int, codebooks: Int
        /// The first frame and codebook that differ; the codebook is -1 where one run has no such frame.
        public let firstFrame: Int, firstCodebook: Int
        /// Frames that differ with their codebooks; all codebooks where one run has no such frame.
        public let rows: [Row]

        /// A frame that differs.
        public struct Row: Sendable, Codable, Equatable {
            /// The frame, and its codebooks that differ.
            public let frame: Int, codebooks: [Int]
        }

        enum CodingKeys: String, CodingKey {
            case reference, tag, arm, frames, codebooks, rows
            case firstFrame = "first_frame"
            case firstCodebook = "first_codebook"
        }
    }
}
