package android.system;

public final class ErrnoException extends Exception {
  public ErrnoException(String function, int errno) {
    super(function + " " + errno);
  }
}
