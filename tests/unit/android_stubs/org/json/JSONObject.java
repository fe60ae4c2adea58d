package org.json;

import java.util.HashMap;
import java.util.Map;

/** As much of JSON as a list of models has: objects, arrays, plain strings, whole numbers, null. */
public class JSONObject {
  private final Map<String, Object> values = new HashMap<>();

  private JSONObject() {}

  public JSONObject(String text) throws JSONException {
    values.putAll(((JSONObject) new Reader(text).value()).values);
  }

  public boolean isNull(String name) {
    return values.get(name) == null;
  }

  public String getString(String name) throws JSONException {
    return (String) get(name);
  }

  public String optString(String name, String fallback) {
    return isNull(name) ? fallback : (String) values.get(name);
  }

  public long getLong(String name) throws JSONException {
    return (Long) get(name);
  }

  public JSONArray getJSONArray(String name) throws JSONException {
    return (JSONArray) get(name);
  }

  private Object get(String name) throws JSONException {
    if (isNull(name)) {
      throw new JSONException("No value for " + name);
    }
    return values.get(name);
  }

  private static final class Reader {
    private final String text;
    private int at;

    Reader(String text) {
      this.text = text;
    }

    Object value() throws JSONException {
      switch (peek()) {
        case '{':
          return object();
        case '[':
          return array();
        case '"':
          return string();
        case 'n':
          at += 4;
          return null;
        default:
          return number();
      }
    }

    private JSONObject object() throws JSONException {
      JSONObject found = new JSONObject();
      for (at++; peek() != '}'; skip(',')) {
        String name = string();
        skip(':');
        found.values.put(name, value());
      }
      at++;
      return found;
    }

    private JSONArray array() throws JSONException {
      JSONArray found = new JSONArray();
      for (at++; peek() != ']'; skip(',')) {
        found.values.add(value());
      }
      at++;
      return found;
    }

    private String string() throws JSONException {
      peek();
      int end = text.indexOf('"', at + 1);
      String found = text.substring(at + 1, end);
      at = end + 1;
      return found;
    }

    private Long number() {
      int begin = at;
      while (at < text.length() && Character.isDigit(text.charAt(at))) {
        at++;
      }
      return Long.valueOf(text.substring(begin, at));
    }

    private void skip(char expected) throws JSONException {
      if (peek() == expected) {
        at++;
      }
    }

    private char peek() throws JSONException {
      while (at < text.length() && Character.isWhitespace(text.charAt(at))) {
        at++;
      }
      if (at == text.length()) {
        throw new JSONException("End of input");
      }
      return text.charAt(at);
    }
  }
}
