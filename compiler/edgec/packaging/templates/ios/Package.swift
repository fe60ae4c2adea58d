// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "EdgecModels",
    platforms: [.iOS("@IOS@")],
    products: [.library(name: "EdgecModels", targets: ["EdgecModels"])],
    targets: [
        // For devices only: it has no slice for the simulator.
        .binaryTarget(name: "ModelIPhone", path: "ModelIPhone.xcframework"),
        .target(
            name: "EdgecModelsAnchor",
            dependencies: ["ModelIPhone"],
            linkerSettings: [
                .linkedLibrary("c++"),
                .linkedFramework("Foundation"),
                .linkedFramework("Metal"),
            ]
        ),
        .target(
            name: "EdgecModels",
            dependencies: ["EdgecModelsAnchor"],
            resources: [.copy("edgec-models.json")]
        ),
    ]
)
