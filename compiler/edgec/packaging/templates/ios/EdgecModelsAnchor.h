#ifndef EDGEC_MODELS_ANCHOR_H
#define EDGEC_MODELS_ANCHOR_H

/// Symbols of every object in libmodel_iphone.a, so that the linker takes all of them in: they
/// register themselves when the app starts, and nothing calls them by name.
const void *const *edgec_models_objects(void);

#endif
