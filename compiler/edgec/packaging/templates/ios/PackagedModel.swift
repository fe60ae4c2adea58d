import EdgecModelsAnchor
import Foundation

/// A model of this package. `lib` is what `MLCEngine.reload` takes as `modelLib`.
public struct PackagedModel: Decodable, Identifiable, Sendable {
    /// A file that the engine loads.
    public struct File: Decodable, Sendable {
        public let path: String
        public let bytes: Int64
        public let sha256: String
    }

    public let id: String
    public let lib: String
    public let estimatedVRAMBytes: Int64
    /// Where the files can be downloaded, each below `resolve/main/`.
    public let url: URL?
    /// Asset packs of Background Assets that hold the files; empty if there are none.
    public let assetPacks: [String]
    public let files: [File]

    private enum CodingKeys: String, CodingKey {
        case id = "model_id"
        case lib = "model_lib"
        case estimatedVRAMBytes = "estimated_vram_bytes"
        case url = "model_url"
        case assetPacks = "asset_packs"
        case files
    }

    private struct List: Decodable {
        let models: [PackagedModel]
    }

    /// The models of this package.
    public static func all() throws -> [PackagedModel] {
        _ = edgec_models_objects()
        guard let list = Bundle.module.url(forResource: "edgec-models", withExtension: "json") else {
            throw CocoaError(.fileNoSuchFile)
        }
        return try JSONDecoder().decode(List.self, from: Data(contentsOf: list)).models
    }

    /// What `MLCEngine.reload` takes as `modelPath` if the folder `bundle` was added to the app;
    /// nil if files are missing.
    public var bundledFolder: URL? {
        let folder = Bundle.main.bundleURL.appendingPathComponent("bundle/\(id)", isDirectory: true)
        return isComplete(in: folder) ? folder : nil
    }

    /// Whether a folder has all files, each of its size: an engine aborts on one that is cut short.
    public func isComplete(in folder: URL) -> Bool {
        files.allSatisfy { file in
            let place = folder.appendingPathComponent(file.path).resolvingSymlinksInPath()
            let size = try? FileManager.default.attributesOfItem(atPath: place.path)[.size]
            return (size as? NSNumber)?.int64Value == file.bytes
        }
    }
}
