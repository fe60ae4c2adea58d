#include "EdgecModelsAnchor.h"

@DECLARATIONS@
__attribute__((used)) static const void *const objects[] = {
@SYMBOLS@};

const void *const *edgec_models_objects(void) {
    return objects;
}
