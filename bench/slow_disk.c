/* When preloaded, adds 1 ms to every sync. A network disk has about this latency. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static void pause_1_ms(void) {
    struct timespec pause = {0, 1000000};
    nanosleep(&pause, 0);
}

int fsync(int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    pause_1_ms();
    return real(file);
}

int fdatasync(int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    pause_1_ms();
    return real(file);
}
