import Qwen3TTS
import Tensors

/// What a stage has to read and to compute, from the shapes of its weights; attention and norms aside, which are small.
public struct StageCost: Sendable, Codable, Equatable {
    /// Bytes of weights read.
    public let weightBytes: Int
    /// Multiply-adds.
    public let multiplyAdds: Int

    /// One row through the talker.
    static func talker(_ file: SafetensorsFile, format: WeightFormat) -> StageCost {
        sum(file, format) { $0.hasPrefix("talker.model.layers.") || $0 == "talker.codec_head.weight" ? (1, 1) : nil }
    }

    /// One frame through the code predictor: two rows, then one for each further code.
    static func codePredictor(_ file: SafetensorsFile, format: WeightFormat, groups: Int) -> StageCost {
        let prefix = "talker.code_predictor."
        return sum(file, format) { name in
            if name.hasPrefix(prefix + "lm_head.") { return (1, 1) }
            let isStack = name.hasPrefix(prefix + "model.layers.") || name.hasPrefix(prefix + "small_to_mtp_projection")
            return isStack ? (groups - 1, groups) : nil
        }
    }

    /// One packet through the codec decoder, whose weights are read once.
    static func decoder(_ file: SafetensorsFile, _ codec: CodecDecoderConfiguration, frames: Int) -> StageCost {
        var (bytes, multiplyAdds) = (0, 0)
        for name in file.names {
            guard let view = file[name], let columns = decoderColumns(name, codec) else { continue }
            bytes += view.count * 4
            multiplyAdds += view.count * columns
        }
        return StageCost(weightBytes: bytes, multiplyAdds: multiplyAdds * frames)
    }

    /// How many columns of a frame a weight of the decoder is multiplied with; nil for others.
    private static func decoderColumns(_ name: String, _ codec: CodecDecoderConfiguration) -> Int? {
        guard name.hasPrefix("decoder."), name.hasSuffix(".weight") else { return nil }
        let parts = name.split(separator: ".").map(String.init)
        let latent = codec.latentUpsampleRates
        switch parts[1] {
        case "quantizer": return parts.contains("output_proj") ? 1 : nil
        case "pre_conv": return 1
        case "pre_transformer": return name.contains("_proj.") ? 1 : nil
        case "upsample":
            guard parts.count > 4, let index = Int(parts[2]), index < latent.count, !parts.contains("norm") else {
                return nil
            }
            return latent.prefix(parts[3] == "0" ? index : index + 1).reduce(1, *)
        case "decoder":
            guard parts.count > 3, let index = Int(parts[2]), !name.contains(".act") else { return nil }
            // A transposed convolution (block.1) sees the columns before its upsampling.
            let isTransposed = parts.count > 4 && parts[3] == "block" && parts[4] == "1"
            let blocks = min(index, codec.upsampleRates.count) - (isTransposed ? 1 : 0)
            return latent.reduce(1, *) * codec.upsampleRates.prefix(max(0, blocks)).reduce(1, *)
        default: return nil
        }
    }

    /// - Parameter passes: how often a matrix is read, and by how many rows in all.
    private static func sum(
        _ file: SafetensorsFile, _ format: WeightFormat, passes: (String) -> (reads: Int, rows: Int)?
    ) -> StageCost {
        var (bytes, multiplyAdds) = (0, 0)
        for name in file.names where name.hasSuffix(".weight") {
            guard let view = file[name], view.shape.count == 2, let (reads, rows) = passes(name) else { continue }
            let size =
                switch format {
                case .bf16: view.type == .bfloat16 ? view.bytes.count : view.count * 4
                case .q8, .q4: Linear.quantizedSize(format, outputs: view.shape[0], inputs: view.shape[1])
                }
            bytes += reads * size
            multiplyAdds += rows * view.count
        }
        return StageCost(weightBytes: bytes, multiplyAdds: multiplyAdds)
    }
}
