import BackgroundAssets
import Foundation
import System

@available(iOS 26.0, *)
extension PackagedModel {
    /// What `MLCEngine.reload` takes as `modelPath`, after the system has downloaded the model's
    /// asset packs. Ask for it at every start of the app; the URL is valid in this process only.
    public func downloadedFolder() async throws -> URL {
        for pack in assetPacks {
            let found = try await AssetPackManager.shared.assetPack(withID: pack)
            try await AssetPackManager.shared.ensureLocalAvailability(of: found)
        }
        let folder = try AssetPackManager.shared.url(for: FilePath("bundle/\(id)"))
        guard isComplete(in: folder) else {
            throw CocoaError(.fileReadCorruptFile)
        }
        return folder
    }
}
