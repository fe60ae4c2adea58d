package edgec.models;

import android.content.Context;
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;

/**
 * Copies a model out of the AI packs that were installed with the app. Those are APKs, and the
 * engine loads a model from files, so that it takes its size twice.
 */
public final class ModelFolder {
  private ModelFolder() {}

  /**
   * The first argument of {@code MLCEngine.reload}. Call it away from the main thread: the first
   * time after an installation it copies.
   */
  public static File find(Context context, PackagedModel model) throws IOException {
    File folder = new File(new File(context.getFilesDir(), "edgec-models"), model.id);
    if (!folder.isDirectory() && !folder.mkdirs()) {
      throw new IOException("can't make " + folder);
    }
    for (PackagedModel.ModelFile file : model.files) {
      File place = new File(folder, file.path);
      File mark = new File(folder, "." + file.path + "." + file.sha256);
      if (place.length() != file.bytes || !mark.exists()) {
        copy(context, model.id + "/" + file.path, place);
        forget(folder, file.path);
        if (place.length() != file.bytes || !mark.createNewFile()) {
          throw new IOException(place + " could not be copied whole");
        }
      }
    }
    return folder;
  }

  private static void copy(Context context, String asset, File place) throws IOException {
    File part = new File(place.getPath() + ".part");
    try (InputStream input = context.getAssets().open(asset);
        OutputStream output = new FileOutputStream(part)) {
      byte[] buffer = new byte[1 << 20];
      for (int count = input.read(buffer); count >= 0; count = input.read(buffer)) {
        output.write(buffer, 0, count);
      }
    }
    if (!part.renameTo(place)) {
      throw new IOException("can't rename " + part);
    }
  }

  /** Removes the marks that an older version of the file left. */
  private static void forget(File folder, String path) {
    File[] marks = folder.listFiles((ignored, name) -> name.startsWith("." + path + "."));
    if (marks != null) {
      for (File mark : marks) {
        mark.delete();
      }
    }
  }
}
