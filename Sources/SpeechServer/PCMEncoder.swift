import AudioFiles
import Synchronization

/// Signed 16-bit little-endian samples.
final class PCMEncoder: AudioEncoder {
    func encode(_ samples: [Float]) -> [UInt8] { PCM16.bytes(samples) }

    func finish() -> [UInt8] { [] }
}

/// The same behind the header of a WAV file of unknown length.
final class WAVEncoder: AudioEncoder {
    private let header: Mutex<[UInt8]>

    init(sampleRate: Int) { header = Mutex(WAVWriter.header(sampleRate: sampleRate)) }

    func encode(_ samples: [Float]) -> [UInt8] { takeHeader() + PCM16.bytes(samples) }

    /// A stream without a sample is a header still.
    func finish() -> [UInt8] { takeHeader() }

    private func takeHeader() -> [UInt8] {
        header.withLock { header in
            defer { header = [] }
            return header
        }
    }
}
