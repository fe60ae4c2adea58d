package com.google.android.play.core.aipacks;

import android.content.Context;
import com.google.android.gms.tasks.Task;
import java.io.File;
import java.util.List;

/** Play, whose packs are the folders below {@code packs} of the app's storage. */
public final class AiPackManagerFactory {
  private AiPackManagerFactory() {}

  public static AiPackManager getInstance(Context context) {
    File packs = new File(context.getFilesDir().getParentFile(), "packs");
    return new AiPackManager() {
      @Override
      public Task<AiPackStates> fetch(List<String> packNames) {
        throw new UnsupportedOperationException(packNames.toString());
      }

      @Override
      public AiPackLocation getPackLocation(String packName) {
        File folder = new File(packs, packName);
        if (!folder.isDirectory()) {
          return null;
        }
        return new AiPackLocation() {
          @Override
          public String assetsPath() {
            return new File(folder, "assets").getPath();
          }
        };
      }
    };
  }
}
