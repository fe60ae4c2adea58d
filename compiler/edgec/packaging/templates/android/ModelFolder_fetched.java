package edgec.models;

import android.content.Context;
import android.system.ErrnoException;
import android.system.Os;
import com.google.android.gms.tasks.Task;
import com.google.android.play.core.aipacks.AiPackLocation;
import com.google.android.play.core.aipacks.AiPackManager;
import com.google.android.play.core.aipacks.AiPackManagerFactory;
import com.google.android.play.core.aipacks.AiPackStates;
import java.io.File;
import java.io.IOException;
import java.util.HashMap;
import java.util.Map;

/**
 * Makes one folder out of a model's AI packs: Play puts each pack into a folder of its own, and the
 * engine loads a model from one. The folder holds links, so that nothing is stored twice.
 */
public final class ModelFolder {
  private ModelFolder() {}

  /** Ask Play for the packs that aren't here; for progress, register a listener with Play. */
  public static Task<AiPackStates> fetch(Context context, PackagedModel model) {
    return AiPackManagerFactory.getInstance(context).fetch(model.packs);
  }

  /**
   * The first argument of {@code MLCEngine.reload}; null as long as packs are missing. Call it at
   * every start of the app: Play may have moved or removed a pack.
   */
  public static File find(Context context, PackagedModel model) throws IOException {
    AiPackManager manager = AiPackManagerFactory.getInstance(context);
    File folder = new File(new File(context.getFilesDir(), "edgec-models"), model.id);
    Map<String, String> assets = new HashMap<>();
    for (String pack : model.packs) {
      AiPackLocation location = manager.getPackLocation(pack);
      if (location == null || location.assetsPath() == null) {
        return null;
      }
      assets.put(pack, location.assetsPath());
    }
    File made = new File(folder.getPath() + ".new");
    delete(made);
    if (!made.mkdirs()) {
      throw new IOException("can't make " + made);
    }
    for (PackagedModel.ModelFile file : model.files) {
      File asset = new File(assets.get(file.pack), model.id + "/" + file.path);
      link(asset, new File(made, file.path));
    }
    if (!model.isComplete(made)) {
      delete(made);
      throw new IOException("the packs of " + model.id + " are of another version of the app");
    }
    delete(folder);
    if (!made.renameTo(folder)) {
      throw new IOException("can't rename " + made);
    }
    return folder;
  }

  private static void link(File file, File place) throws IOException {
    try {
      Os.symlink(file.getAbsolutePath(), place.getAbsolutePath());
    } catch (ErrnoException error) {
      throw new IOException("can't link " + place, error);
    }
  }

  /** Removes a folder of links; what they lead to stays. */
  private static void delete(File folder) throws IOException {
    File[] links = folder.listFiles();
    if (links == null) {
      return;
    }
    for (File link : links) {
      if (!link.delete()) {
        throw new IOException("can't delete " + link);
      }
    }
    if (!folder.delete()) {
      throw new IOException("can't delete " + folder);
    }
  }
}
