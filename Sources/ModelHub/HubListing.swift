/// The answer of `/api/models/NAME/revision/REVISION?blobs=true`, as far as it is used.
struct HubListing: Decodable, Sendable {
    /// The commit.
    let sha: String
    /// The files.
    let siblings: [File]?

    /// One file of the commit.
    struct File: Decodable, Sendable {
        /// Its path in the repository.
        let rfilename: String
        /// Its size in bytes, where the hub tells.
        let size: Int64?
        /// Git's hash of it (of the pointer, for a file in large-file storage).
        let blobId: String?
        /// Where it is in large-file storage.
        let lfs: LargeFile?
    }

    /// What large-file storage knows of a file.
    struct LargeFile: Decodable, Sendable {
        /// SHA-256 in hexadecimal.
        let sha256: String?
        /// The size in bytes.
        let size: Int64?
    }
}

/// A file that is to be in the cache.
struct RemoteFile: Sendable {
    /// Its path in the repository, checked.
    let path: String
    /// The name of its blob, checked.
    let etag: String
    /// Its size in bytes.
    let size: Int64
    /// What its bytes must hash to; the etag where that is a hash, else the listing's.
    let hash: BlobHash?
}
