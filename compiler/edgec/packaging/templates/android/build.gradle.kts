// The models of this package for an app: their list, and where their files are on the device.
// The libraries are in mlc4j, which build-mlc4j.sh makes.
plugins {
    id("com.android.library")
}

android {
    namespace = "edgec.models"
    compileSdk = 35

    defaultConfig {
        minSdk = 24 // what mlc4j's native library is built for
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
}

dependencies {
    api(project(":mlc4j"))
@DEPENDENCIES@}
