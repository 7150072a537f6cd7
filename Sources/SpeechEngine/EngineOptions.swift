public import Qwen3TTS

/// How packets are cut from a stream of frames. Their size never changes a byte of the audio.
public enum PacketPolicy: Sendable, Equatable {
    /// This many frames each.
    case fixed(Int)
    /// One frame first, then 2, 4, 8 as the listener's lead grows, and fewer again as it shrinks.
    case growing

    /// Frames of a packet at most.
    var mostFrames: Int { if case .fixed(let count) = self { count } else { 8 } }

    /// Frames that are worth a packet to a listener with so many seconds in hand: as long as they take at real time, half of
    /// that remains.
    func frames(lead: Double, secondsPerFrame: Double) -> Int {
        if case .fixed(let count) = self { return count }
        var count = mostFrames
        while count > 1, lead <= Double(2 * count) * secondsPerFrame { count /= 2 }
        return count
    }
}

/// Who is stepped first.
public enum SchedulingPolicy: String, Sendable, CaseIterable {
    /// Who would run dry first; new utterances go ahead of those with lead to spare.
    case playbackLead
    /// Who came first: the plain scheduler that the other one is measured against.
    case arrival
}

/// How the generation of codes and the decoding of packets share one device.
///
/// No mode changes a byte; ``PacketTimes`` shows what each one did. On the CPU both sides compute with one pool of
/// threads and take it by turns, parallel section by parallel section. On a GPU each side has its own stream of work, and
/// the card runs what both have issued side by side.
public enum SyncMode: String, Sendable, CaseIterable {
    /// Generation goes on while packets are decoded, those of the same utterance included.
    case none
    /// Generation waits for every decode call: one thread does one after the other.
    case sync
    /// Each packet is waited for by its own utterance; the others are generated on.
    case event
    /// Generation goes on during codebooks and pre-transformer and waits for upsampling and convolutions. Needs
    /// generation in the same process and on the same device; otherwise the engine says why not, and runs as ``none``.
    case phase
}

/// Where an engine works, its limits, and the switches of its experiments.
public struct EngineOptions: Sendable {
    /// The GPU that generates codes, and the one that decodes them, usually the same; nil is the CPU, for which the model
    /// then needs its stages. A GPU serves one engine at a time.
    public var generationGPU: CUDAHost?, decodingGPU: CUDAHost?
    /// Utterances stepped together; nil is 8 on the CPU and 128 on a GPU, where more make a round longer than a frame lasts
    /// before they raise the throughput.
    public var maxBatch: Int?
    /// Utterances that speak at a time; more wait.
    public var maxActive = 64
    /// Utterances that wait at most; more are refused.
    public var maxQueued = 64
    /// Frames that a reader may be behind before its utterance is no longer stepped: 20 s.
    public var maxUnreadFrames = 250
    /// A reader that takes nothing for so many seconds, with audio waiting, is dropped.
    public var readerTimeout = 60.0
    /// An utterance whose text does not come for so many seconds is ended.
    public var textTimeout = 300.0
    /// Order of service.
    public var scheduling = SchedulingPolicy.playbackLead
    /// Whether an utterance waits until it can be kept from underrun.
    public var admitsByCapacity = true
    /// What counts as a run-away; nil lets the model speak on until its own limit.
    public var runaway: RunawayLimits? = RunawayLimits()

    /// Keeps short utterances that have ended, so that the same request again is answered at once; nil keeps none.
    public var starterCache: StarterCacheLimits?
    /// Keeps the utterances that have a name; nil keeps none.
    public var keeper: (any UtteranceKeeper)?
    /// How the decoder remembers what came before a packet. Windowed decoding gives other samples than the incremental
    /// one, and they depend on the packets.
    public var decoding = DecoderMode.incremental
    /// Which parts of the decoder run; with any part left out the audio is silence of the right length.
    public var decoderStages = DecoderStages.all
    /// Decodes once every so many packets, whose audio then comes in one packet.
    public var decodeEvery = 1
    /// How generation and decoding share the device.
    public var syncMode = SyncMode.sync
    /// Packets of an utterance for which generation waits whatever the mode: 0 overlaps at once, 1 once the first packet
    /// is out.
    public var prefillPackets = 1
    /// Generates codes in a process of its own (`martlet worker`), which opens the GPU that generates for itself. If it dies
    /// its utterances end with `workerLost`, and it is started again.
    public var workerProcess = false
    /// Sees one line for the log whenever the worker process got ready or was lost.
    public var log: (@Sendable (String) -> Void)?
    /// Seconds for the worker process to answer, after which it is killed, as one that died is; nil waits for ever. An
    /// answer is one step of at most `maxBatch` utterances.
    public var workerTimeout: Double? = 30
    /// The same until it is ready, which is how long its weights take to load.
    public var workerLoadTimeout: Double? = 600
    /// The program to run as the worker process; nil is this one.
    public var workerExecutable: String?

    /// The defaults.
    public init() {}

    /// Utterances stepped together at most.
    var batchLimit: Int { maxBatch ?? Self.cpuBatch }

    /// Utterances that the CPU steps together unless it is told otherwise.
    package static let cpuBatch = 8

    /// The same for a GPU.
    private static let gpuBatch = 128

    /// Why generation cannot be held while the second half of a decode call runs.
    private var whyNoPhases: String? {
        if workerProcess { return "codes are generated in a worker process" }
        if generationGPU !== decodingGPU { return "generation and decoding have different devices" }
        return nil
    }

    /// The options that hold, and a line for each one that cannot.
    func resolved() -> (options: EngineOptions, notes: [String]) {
        var options = self
        var notes: [String] = []
        options.decodeEvery = max(1, decodeEvery)
        if case .windowed(let leftContext) = decoding { options.decoding = .windowed(leftContext: max(0, leftContext)) }
        if let gpu = generationGPU {
            options.maxBatch = min(maxBatch ?? Self.gpuBatch, gpu.slots)
            options.maxActive = min(maxActive, gpu.slots)
        }
        if let gpu = decodingGPU {
            options.maxActive = min(options.maxActive, gpu.slots)
        }
        if options.syncMode == .phase, let reason = options.whyNoPhases {
            options.syncMode = .none
            notes.append("phase sync disabled: \(reason); generation and decoding overlap")
        }
        return (options, notes)
    }
}

/// When the engine ends an utterance because the model has lost its way.
///
/// Each rule is a function of the utterance's own text, codes and samples, frame by frame: it ends at the same frame
/// whatever the packets or the load.
public struct RunawayLimits: Sendable, Equatable {
    /// Frames allowed without any text.
    public var baseFrames = 125
    /// Frames allowed for each text token: real speech takes three or four.
    public var framesPerToken = 16
    /// Frames of silence in a row.
    public var silentFrames = 100
    /// Samples below this are silence: -60 dB.
    public var silence: Float = 0.001
    /// Judges a frame by the root of its mean square instead, which is silence below this.
    public var silenceRMS: Float?
    /// Frames through which all codes repeat with one period of at most `loopPeriod` frames.
    public var loopFrames = 75
    /// Longest period looked for.
    public var loopPeriod = 12

    /// The defaults.
    public init() {}
}
