/* A stub of libnvidia-ml.so.1, for tests on machines without a GPU: it is not NVIDIA's, and says STUB wherever it can.
 *
 *   LC_STUB_GPUS   how many GPUs there are (default: 2). LC_: a name that servers leave in their sealed environment.
 *   LC_STUB_FAIL   function=code pairs, separated by commas: these functions return these codes
 *   LC_STUB_HANG   a function that never returns
 *
 * With -DOLD_DRIVER it lacks what was added late: the energy counter, and the new name of the throttle reasons.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { unsigned index; } *Device;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned long long total, free, used; } Memory;

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_FOUND = 6 };

static unsigned gpu_count(void) {
    const char *text = getenv("LC_STUB_GPUS");
    return text ? (unsigned)atoi(text) : 2;
}

/* What `function` returns; it may never come back from here. */
static int outcome(const char *function) {
    const char *hanging = getenv("LC_STUB_HANG"), *failing = getenv("LC_STUB_FAIL");
    while (hanging && !strcmp(hanging, function)) pause();
    size_t size = strlen(function);
    for (const char *at = failing; at && (at = strstr(at, function)); at += size)
        if ((at == failing || at[-1] == ',') && at[size] == '=') return atoi(at + size + 1);
    return SUCCESS;
}

static void write_uuid(unsigned index, char *uuid, unsigned size) {
    snprintf(uuid, size, "GPU-57AB000%u-0000-0000-0000-000000000000", index);
}

#define QUERY(name, type, value) \
    int name(Device device, type *answer) { int code = outcome(#name); if (!code) *answer = (type)value; return code; }
#define QUERY_OF(name, type, value) \
    int name(Device device, int what, type *answer) { int code = outcome(#name); if (!code) *answer = value; return code; }

int nvmlInitWithFlags(unsigned flags) { return outcome("nvmlInitWithFlags"); }
int nvmlShutdown(void) { return outcome("nvmlShutdown"); }
const char *nvmlErrorString(int code) { return "STUB error"; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = gpu_count();
    return outcome("nvmlDeviceGetCount_v2");
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *device) {
    if (index >= gpu_count()) return INVALID_ARGUMENT;
    *device = malloc(sizeof **device);
    (*device)->index = index;
    return outcome("nvmlDeviceGetHandleByIndex_v2");
}

int nvmlDeviceGetHandleByUUID(const char *wanted, Device *device) {
    char uuid[64];
    for (unsigned index = 0; index < gpu_count(); index++) {
        write_uuid(index, uuid, sizeof uuid);
        if (!strcmp(uuid, wanted)) return nvmlDeviceGetHandleByIndex_v2(index, device);
    }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(Device device, char *uuid, unsigned size) {
    write_uuid(device->index, uuid, size);
    return outcome("nvmlDeviceGetUUID");
}

int nvmlDeviceGetName(Device device, char *name, unsigned size) {
    snprintf(name, size, "STUB %u, not a GPU", device->index);
    return outcome("nvmlDeviceGetName");
}

QUERY(nvmlDeviceGetUtilizationRates, Utilization, ((Utilization){37 + device->index, 12}))
QUERY(nvmlDeviceGetMemoryInfo, Memory, ((Memory){8ull << 30, 5ull << 30, 3ull << 30}))
QUERY(nvmlDeviceGetPowerUsage, unsigned, 123456)
QUERY(nvmlDeviceGetPowerManagementLimit, unsigned, 400000)
QUERY_OF(nvmlDeviceGetTemperature, unsigned, 51)
QUERY_OF(nvmlDeviceGetClockInfo, unsigned, (what == 1 ? 1410 : what == 2 ? 1593 : 0))
QUERY(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, 0x24)
#ifndef OLD_DRIVER
QUERY(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, 0x24)
QUERY(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, 7654321)
#endif

int nvmlDeviceGetTotalEccErrors(Device device, int kind, int counter, unsigned long long *count) {
    *count = kind == 0 ? 5 : 1;
    return outcome("nvmlDeviceGetTotalEccErrors");
}
