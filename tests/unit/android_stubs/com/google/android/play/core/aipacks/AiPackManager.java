package com.google.android.play.core.aipacks;

import com.google.android.gms.tasks.Task;
import java.util.List;

public interface AiPackManager {
  Task<AiPackStates> fetch(List<String> packNames);

  AiPackLocation getPackLocation(String packName);
}
