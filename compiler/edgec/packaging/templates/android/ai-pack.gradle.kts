// An AI pack of Play for On-device AI: weights only. The folder's name is the pack's name.
plugins {
    id("com.android.ai-pack")
}

aiPack {
    packName = "@PACK@"
    dynamicDelivery {
        deliveryType = "@DELIVERY@"
    }
}
