package org.json;

import java.util.ArrayList;
import java.util.List;

public class JSONArray {
  final List<Object> values = new ArrayList<>();

  public int length() {
    return values.size();
  }

  public JSONObject getJSONObject(int index) throws JSONException {
    return (JSONObject) values.get(index);
  }
}
