package android.content;

import android.content.res.AssetManager;
import java.io.File;

/** An app whose storage is one folder. */
public class Context {
  private final File root;

  public Context(File root) {
    this.root = root;
  }

  public AssetManager getAssets() {
    return new AssetManager(new File(root, "assets"));
  }

  public File getFilesDir() {
    return new File(root, "files");
  }

  public File getExternalFilesDir(String type) {
    return new File(root, "external");
  }
}
