import AsyncHTTPClient
import NIOCore
import NIOHTTP1

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Fetches models from a hub that speaks the Hugging Face protocol, into huggingface_hub's cache layout, so that what
/// either fetched is there for the other.
///
/// A pull asks for the commit and its files, then for each file's size and hash, checks the disk space, fetches what is
/// missing (four files at a time, resumed where an earlier pull ended), checks size and hash, links the files into the
/// snapshot and writes the reference last: a snapshot that a reference names is whole.
public struct HubClient: Sendable {
    /// The hub, the cache and the patience.
    public let configuration: HubConfiguration

    private static let filesAtOnce = 4
    /// The largest answer to a listing that is read.
    private static let maximumListingBytes = 64 << 20

    /// Makes a client.
    public init(configuration: HubConfiguration) {
        self.configuration = configuration
    }

    /// Makes a client as the environment describes it; see ``HubConfiguration/init(environment:)``.
    public init() throws(HubError) {
        configuration = try HubConfiguration()
    }

    /// The folder of a snapshot that is in the cache, without asking the hub; nil if it is not there.
    ///
    /// A snapshot that huggingface_hub fetched in part counts as there.
    public func locate(repository: String, revision: String = "main") throws(HubError) -> URL? {
        let cache = HubCache(directory: configuration.cacheDirectory, repository: try HubRepository(repository))
        return cache.locate(try HubRevision(revision)).map { URL(fileURLWithPath: $0, isDirectory: true) }
    }

    /// Brings the wanted files of a repository into the cache and gives the folder they lie in.
    ///
    /// - Parameters:
    ///   - repository: `ORGANISATION/NAME`.
    ///   - revision: A branch, a tag or a commit.
    ///   - files: Which files are wanted.
    ///   - progress: Called often, from any thread, one call at a time; it must be quick.
    public func pull(
        repository: String, revision: String = "main", files: FileSelection = .model,
        progress: @escaping @Sendable (PullProgress) -> Void = { _ in }
    ) async throws(HubError) -> URL {
        let repository = try HubRepository(repository)
        let revision = try HubRevision(revision)
        let cache = HubCache(directory: configuration.cacheDirectory, repository: repository)
        if configuration.isOffline {
            guard let snapshot = cache.locate(revision) else { throw .offline(repository: repository.name) }
            return URL(fileURLWithPath: snapshot, isDirectory: true)
        }
        do {
            let snapshot = try await HubTransport.with(configuration) { transport in
                try await Pull(
                    transport: transport, repository: repository, revision: revision, cache: cache,
                    meter: ProgressMeter(progress)
                ).run(files)
            }
            return URL(fileURLWithPath: snapshot, isDirectory: true)
        } catch let error as HubError {
            throw error
        } catch is CancellationError {
            throw .cancelled
        } catch {
            throw .unreachable(host: configuration.endpoint, reason: "\(error)")
        }
    }

    /// One pull.
    private struct Pull: Sendable {
        let transport: HubTransport
        let repository: HubRepository
        let revision: HubRevision
        let cache: HubCache
        let meter: ProgressMeter

        private var configuration: HubConfiguration { transport.configuration }

        func run(_ selection: FileSelection) async throws -> String {
            let listing = try await listing()
            guard HubRevision.isCommit(listing.sha) else {
                throw HubError.unexpectedAnswer("'\(listing.sha)' is not a commit")
            }
            let wanted = (listing.siblings ?? []).filter { selection.contains($0.rfilename) }
            if let unsafe = wanted.first(where: { !isSafeRelativePath($0.rfilename) }) {
                throw HubError.unsafePath(unsafe.rfilename)
            }
            guard !wanted.isEmpty else {
                throw HubError.nothingToPull(repository: repository.name, patterns: selection.include)
            }
            let snapshot = cache.snapshot(listing.sha)
            let missing = wanted.filter { file in
                let size = fileSize("\(snapshot)/\(file.rfilename)")
                return size == nil || (file.lfs?.size ?? file.size ?? size) != size
            }
            let remote = try await concurrently(missing, atOnce: filesAtOnce) { file in
                try await transport.withRetries { try await describe(file, commit: listing.sha) }
            }
            try checkSpace(for: remote)
            let present = wanted.count - missing.count
            let bytesPresent =
                wanted.reduce(0) { $0 + (fileSize("\(snapshot)/\($1.rfilename)") ?? 0) }
                - missing.reduce(0) { $0 + (fileSize("\(snapshot)/\($1.rfilename)") ?? 0) }
            meter.update {
                $0.filesTotal = wanted.count
                $0.filesDone = present
                $0.bytesTotal = saturatingSum([bytesPresent] + remote.map(\.size))
                $0.bytesDone = bytesPresent
            }
            _ = try await concurrently(remote, atOnce: filesAtOnce) { file in
                try await fetch(file, commit: listing.sha)
                try cache.link(file.path, commit: listing.sha, etag: file.etag)
                meter.update {
                    $0.filesDone += 1
                    $0.path = file.path
                }
            }
            try cache.setReference(revision, commit: listing.sha)
            return snapshot
        }

        private func listing() async throws -> HubListing {
            let name = escaped(revision.name, keepingSlashes: false)
            let address = "\(configuration.endpoint)/api/models/\(repository.name)/revision/\(name)?blobs=true"
            let bytes = try await transport.withRetries {
                let response = try await transport.send(.GET, address, follow: .all)
                guard response.status.code == 200 else { throw failure(response, path: nil) }
                do {
                    return Data(try await response.body.collect(upTo: maximumListingBytes).readableBytesView)
                } catch is NIOTooManyBytesError {
                    throw HubError.unexpectedAnswer("the list of files is longer than \(maximumListingBytes) bytes")
                } catch {
                    throw HubTransport.connectionFailure(error, host: address)
                }
            }
            do {
                return try JSONDecoder().decode(HubListing.self, from: bytes)
            } catch {
                throw HubError.unexpectedAnswer("the list of files of \(repository) is not the expected JSON")
            }
        }

        /// Asks for the size and hash of one file.
        private func describe(_ file: HubListing.File, commit: String) async throws -> RemoteFile {
            let response = try await transport.send(.HEAD, address(file.rfilename, commit), follow: .sameOrigin)
            let isRedirect = 300...399 ~= response.status.code
            guard response.status.code == 200 || isRedirect else { throw failure(response, path: file.rfilename) }
            let headers = response.headers
            if let stated = headers.first(name: "X-Repo-Commit"), stated != commit {
                throw HubError.unexpectedAnswer("\(file.rfilename) comes from commit \(stated), not \(commit)")
            }
            let tag = headers.first(name: "X-Linked-ETag") ?? (isRedirect ? nil : headers.first(name: "ETag"))
            guard let etag = (tag ?? headers.first(name: "ETag")).flatMap(normalisedETag) else {
                throw HubError.unexpectedAnswer("the answer for \(file.rfilename) has no usable ETag header")
            }
            let length =
                headers.first(name: "X-Linked-Size") ?? (isRedirect ? nil : headers.first(name: "Content-Length"))
            let listed = file.lfs?.size ?? file.size
            guard let size = length.flatMap({ Int64($0) }) ?? listed, size >= 0 else {
                throw HubError.unexpectedAnswer("the hub does not state the size of \(file.rfilename)")
            }
            if let listed, listed != size {
                throw HubError.unexpectedAnswer("the hub states two sizes for \(file.rfilename): \(listed) and \(size)")
            }
            let listedHash = file.lfs?.sha256 ?? (file.lfs == nil ? file.blobId : nil)
            let hash = BlobHash(etag: etag, size: size)
            if let hash, let listedHash, listedHash.utf8.count == hash.expected.utf8.count, listedHash != hash.expected
            {
                throw HubError.unexpectedAnswer("the hub states two hashes for \(file.rfilename)")
            }
            return RemoteFile(
                path: file.rfilename, etag: etag, size: size,
                hash: hash ?? listedHash.flatMap { BlobHash(etag: $0, size: size) })
        }

        private func checkSpace(for files: [RemoteFile]) throws(HubError) {
            let missing = files.filter { fileSize(cache.blob($0.etag)) != $0.size }
            let needed = saturatingSum(
                missing.map { $0.size - min($0.size, fileSize(cache.incomplete($0.etag)) ?? 0) })
            guard needed > 0, let free = freeSpace(at: cache.folder), free < needed else { return }
            throw .diskSpace(path: configuration.cacheDirectory, needed: needed, free: free)
        }

        /// Brings one blob into the cache.
        private func fetch(_ file: RemoteFile, commit: String) async throws {
            let lock = try await FileLock(cache.lock(file.etag))
            defer { lock.release() }
            if fileSize(cache.blob(file.etag)) == file.size {
                return meter.update { $0.bytesDone += file.size }
            }
            var blob = try await PartialBlob.opened(path: cache.incomplete(file.etag), size: file.size, hash: file.hash)
            while true {
                try await fill(&blob, file, commit: commit)
                guard let wrong = blob.wrongHash() else { break }
                // What an earlier pull left may be what is wrong: once, everything is fetched again.
                guard blob.isResumed else {
                    blob.discard()
                    throw HubError.hashMismatch(path: file.path, expected: wrong.expected, actual: wrong.actual)
                }
                try restart(&blob, file)
            }
            try blob.publish(as: cache.blob(file.etag))
        }

        /// Requests the rest of a blob until it is all there.
        private func fill(_ blob: inout PartialBlob, _ file: RemoteFile, commit: String) async throws {
            let resumed = blob.count
            meter.update {
                $0.bytesDone += resumed
                $0.path = file.path
            }
            var failures = 0
            var attempts = 0
            while blob.count < file.size {
                let before = blob.count
                do {
                    try await append(to: &blob, file, commit: commit)
                } catch let failure as TransientFailure {
                    attempts += 1
                    failures = blob.count > before ? 1 : failures + 1
                    let policy = configuration.retry
                    try await transport.pause(
                        after: failure, failures: attempts < policy.totalAttempts ? failures : policy.attempts)
                }
            }
        }

        /// One request for the rest of a blob.
        private func append(to blob: inout PartialBlob, _ file: RemoteFile, commit: String) async throws {
            let address = address(file.path, commit)
            let range = blob.count > 0 ? [("Range", "bytes=\(blob.count)-")] : []
            let response = try await transport.send(.GET, address, headers: range, follow: .all)
            let host = configuration.endpoint
            switch response.status.code {
            case 200:
                if blob.count > 0 { try restart(&blob, file) }
                if let length = response.headers.first(name: "Content-Length").flatMap({ Int64($0) }),
                    length != file.size
                {
                    blob.discard()
                    throw HubError.sizeMismatch(path: file.path, expected: file.size, actual: length)
                }
            case 206:
                let stated = response.headers.first(name: "Content-Range") ?? ""
                guard stated.hasPrefix("bytes \(blob.count)-"),
                    stated.hasSuffix("/\(file.size)") || stated.hasSuffix("/*")
                else {
                    try restart(&blob, file)
                    throw TransientFailure(host: host, status: nil, reason: "a wrong range, '\(stated)'")
                }
            case 416:
                try restart(&blob, file)
                throw TransientFailure(host: host, status: 416, reason: "range refused")
            default: throw failure(response, path: file.path)
            }
            do {
                for try await var chunk in response.body {
                    let count = Int64(chunk.readableBytes)
                    guard count <= file.size - blob.count else {
                        blob.discard()
                        throw HubError.sizeMismatch(
                            path: file.path, expected: file.size, actual: blob.count + count)
                    }
                    try chunk.readWithUnsafeReadableBytes { bytes in
                        try blob.append(bytes)
                        return bytes.count
                    }
                    meter.update {
                        $0.bytesDone += count
                        $0.path = file.path
                    }
                }
            } catch let error as HubError {
                throw error
            } catch {
                throw HubTransport.connectionFailure(error, host: host)
            }
            if blob.count < file.size {
                throw TransientFailure(host: host, status: nil, reason: "the connection ended early")
            }
        }

        /// Forgets what is there of a blob.
        private func restart(_ blob: inout PartialBlob, _ file: RemoteFile) throws(HubError) {
            let lost = blob.count
            try blob.restart()
            meter.update { $0.bytesDone -= lost }
        }

        private func address(_ path: String, _ commit: String) -> String {
            "\(configuration.endpoint)/\(repository.name)/resolve/\(commit)/\(escaped(path, keepingSlashes: true))"
        }

        /// What a status that is not a success means.
        private func failure(_ response: HTTPClientResponse, path: String?) -> HubError {
            let code = response.headers.first(name: "X-Error-Code")
            let message = response.headers.first(name: "X-Error-Message").map { String($0.prefix(200)) }
            let status = Int(response.status.code)
            let hasToken = configuration.token != nil
            let name = repository.name
            let reason = message ?? "status \(status)"
            switch (code, status) {
            case ("GatedRepo", _):
                return .gated(repository: name, page: "\(configuration.endpoint)/\(name)", hasToken: hasToken)
            case ("RevisionNotFound", _): return .revisionNotFound(repository: name, revision: revision.name)
            case ("RepoNotFound", _): return .repositoryNotFound(repository: name, hasToken: hasToken)
            // The hub answers 401 for repositories that do not exist, unless it names the token as the reason.
            case (_, 401) where !hasToken: return .repositoryNotFound(repository: name, hasToken: false)
            case (_, 401), (_, 403): return .accessDenied(repository: name, reason: reason, hasToken: hasToken)
            case (_, 404):
                guard let path else { return .repositoryNotFound(repository: name, hasToken: hasToken) }
                return .fileNotFound(repository: name, path: path)
            default: return .unexpectedStatus(host: configuration.endpoint, status: status, reason: reason)
            }
        }
    }
}

/// Maps `items` with a few tasks at once, results in order; the first error cancels the rest.
private func concurrently<Item: Sendable, Result: Sendable>(
    _ items: [Item], atOnce: Int, _ body: @escaping @Sendable (Item) async throws -> Result
) async throws -> [Result] {
    try await withThrowingTaskGroup(of: (Int, Result).self) { group in
        var results: [Result?] = items.map { _ in nil }
        for (index, item) in items.enumerated() {
            if index >= atOnce, let (done, result) = try await group.next() { results[done] = result }
            group.addTask { (index, try await body(item)) }
        }
        while let (done, result) = try await group.next() { results[done] = result }
        return results.compactMap { $0 }
    }
}

/// The sum of sizes that nobody has vouched for.
private func saturatingSum(_ sizes: [Int64]) -> Int64 {
    sizes.reduce(0) { sum, size in
        let (value, overflow) = sum.addingReportingOverflow(size)
        return overflow ? .max : value
    }
}

/// An ETag without `W/` and quotes, if it can name a file.
private func normalisedETag(_ text: String) -> String? {
    let text = text.hasPrefix("W/") ? text.dropFirst(2) : text[...]
    let tag = String(text).trimmingCharacters { $0 == "\"" }
    let isSafe = tag.utf8.allSatisfy {
        switch $0 {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        default: false
        }
    }
    return isSafe && 1...200 ~= tag.utf8.count ? tag : nil
}

/// Percent-encoding of everything but RFC 3986's unreserved characters.
private func escaped(_ text: String, keepingSlashes: Bool) -> String {
    let digits = Array("0123456789ABCDEF")
    var result = ""
    for byte in text.utf8 {
        let character = Character(UnicodeScalar(byte))
        let isPlain = byte < 128 && (character.isLetter || character.isNumber || "-._~".contains(character))
        if isPlain || (keepingSlashes && character == "/") {
            result.append(character)
        } else {
            result += "%\(digits[Int(byte >> 4)])\(digits[Int(byte & 15)])"
        }
    }
    return result
}
