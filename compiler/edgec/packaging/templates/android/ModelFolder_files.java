package edgec.models;

import android.content.Context;
import java.io.File;

/** Finds the files of a model that were downloaded or pushed, where MLC's Android app has them. */
public final class ModelFolder {
  private ModelFolder() {}

  /** The folder to download to, or to push to. It is on storage that adb can write to. */
  public static File place(Context context, PackagedModel model) {
    return new File(context.getExternalFilesDir(null), model.id);
  }

  /** The first argument of {@code MLCEngine.reload}; null as long as files are missing. */
  public static File find(Context context, PackagedModel model) {
    File folder = place(context, model);
    return model.isComplete(folder) ? folder : null;
  }
}
