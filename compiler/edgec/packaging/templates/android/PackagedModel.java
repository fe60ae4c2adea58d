package edgec.models;

import android.content.Context;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/** A model of this package. {@code lib} is the second argument of {@code MLCEngine.reload}. */
public final class PackagedModel {
  /** A file that the engine loads. */
  public static final class ModelFile {
    public final String path;
    public final long bytes;
    public final String sha256;

    /** The AI pack that it is delivered in; empty if it is in none. */
    public final String pack;

    ModelFile(String path, long bytes, String sha256, String pack) {
      this.path = path;
      this.bytes = bytes;
      this.sha256 = sha256;
      this.pack = pack;
    }
  }

  private static final String LIST = "edgec-models.json";

  public final String id;
  public final String lib;
  public final long estimatedVramBytes;

  /** Where the files can be downloaded, each below {@code resolve/main/}; empty if nowhere. */
  public final String url;

  /** All AI packs of the model, in their order; empty if it isn't delivered in packs. */
  public final List<String> packs;

  public final List<ModelFile> files;

  private PackagedModel(JSONObject model) throws JSONException {
    id = model.getString("model_id");
    lib = model.getString("model_lib");
    estimatedVramBytes = model.getLong("estimated_vram_bytes");
    url = model.isNull("model_url") ? "" : model.getString("model_url");
    List<String> packNames = new ArrayList<>();
    List<ModelFile> modelFiles = new ArrayList<>();
    JSONArray list = model.getJSONArray("files");
    for (int index = 0; index < list.length(); index++) {
      JSONObject file = list.getJSONObject(index);
      String pack = file.optString("pack", "");
      if (!pack.isEmpty() && !packNames.contains(pack)) {
        packNames.add(pack);
      }
      modelFiles.add(
          new ModelFile(
              file.getString("path"), file.getLong("bytes"), file.getString("sha256"), pack));
    }
    packs = Collections.unmodifiableList(packNames);
    files = Collections.unmodifiableList(modelFiles);
  }

  /** The models of this package. */
  public static List<PackagedModel> all(Context context) throws IOException {
    List<PackagedModel> models = new ArrayList<>();
    try {
      JSONArray list = new JSONObject(read(context)).getJSONArray("models");
      for (int index = 0; index < list.length(); index++) {
        models.add(new PackagedModel(list.getJSONObject(index)));
      }
    } catch (JSONException error) {
      throw new IOException(LIST + " is damaged", error);
    }
    return models;
  }

  /** Whether a folder has all files, each of its size: an engine aborts on one that is cut short. */
  public boolean isComplete(File folder) {
    for (ModelFile file : files) {
      if (new File(folder, file.path).length() != file.bytes) {
        return false;
      }
    }
    return true;
  }

  private static String read(Context context) throws IOException {
    try (InputStream input = context.getAssets().open(LIST)) {
      ByteArrayOutputStream output = new ByteArrayOutputStream();
      byte[] buffer = new byte[1 << 16];
      for (int count = input.read(buffer); count >= 0; count = input.read(buffer)) {
        output.write(buffer, 0, count);
      }
      return new String(output.toByteArray(), StandardCharsets.UTF_8);
    }
  }
}
