#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "CCUDA.h"

struct entry {
    const char *symbol;
    void **slot;
};

static int fill(void *library, const struct entry *entries, size_t count, char *message, size_t size) {
    for (size_t i = 0; i < count; i++) {
        *entries[i].slot = dlsym(library, entries[i].symbol);
        if (*entries[i].slot == NULL) {
            snprintf(message, size, "it lacks the function %s", entries[i].symbol);
            return 0;
        }
    }
    return 1;
}

int mk_cuda_open(mk_cuda_driver *d, char *message, size_t size) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *reason = dlerror();
        snprintf(message, size, "%s", reason ? reason : "libcuda.so.1 cannot be opened");
        return 0;
    }
    const struct entry entries[] = {
        {"cuInit", (void **)&d->init},
        {"cuDriverGetVersion", (void **)&d->driver_version},
        {"cuDeviceGetCount", (void **)&d->device_count},
        {"cuDeviceGet", (void **)&d->device_get},
        {"cuDeviceGetName", (void **)&d->device_name},
        {"cuDeviceGetAttribute", (void **)&d->device_attribute},
        {"cuDeviceTotalMem_v2", (void **)&d->device_memory},
        {"cuDevicePrimaryCtxRetain", (void **)&d->context_retain},
        {"cuDevicePrimaryCtxRelease_v2", (void **)&d->context_release},
        {"cuCtxSetCurrent", (void **)&d->context_set},
        {"cuMemGetInfo_v2", (void **)&d->memory_info},
        {"cuMemAlloc_v2", (void **)&d->allocate},
        {"cuMemFree_v2", (void **)&d->release},
        {"cuMemcpyHtoD_v2", (void **)&d->copy_in},
        {"cuMemcpyDtoH_v2", (void **)&d->copy_out},
        {"cuMemcpyHtoDAsync_v2", (void **)&d->copy_in_async},
        {"cuMemcpyDtoHAsync_v2", (void **)&d->copy_out_async},
        {"cuMemcpyDtoDAsync_v2", (void **)&d->copy_device_async},
        {"cuMemsetD8Async", (void **)&d->fill_async},
        {"cuModuleLoadData", (void **)&d->module_load},
        {"cuModuleUnload", (void **)&d->module_unload},
        {"cuModuleGetFunction", (void **)&d->module_function},
        {"cuFuncSetAttribute", (void **)&d->function_set},
        {"cuLaunchKernel", (void **)&d->launch},
        {"cuLaunchCooperativeKernel", (void **)&d->launch_cooperative},
        {"cuStreamCreate", (void **)&d->stream_create},
        {"cuStreamDestroy_v2", (void **)&d->stream_destroy},
        {"cuStreamSynchronize", (void **)&d->stream_wait},
        {"cuEventCreate", (void **)&d->event_create},
        {"cuEventDestroy_v2", (void **)&d->event_destroy},
        {"cuEventRecord", (void **)&d->event_record},
        {"cuEventSynchronize", (void **)&d->event_wait},
        {"cuEventElapsedTime", (void **)&d->event_elapsed},
        {"cuGetErrorName", (void **)&d->error_name},
        {"cuGetErrorString", (void **)&d->error_string},
    };
    if (!fill(library, entries, sizeof entries / sizeof entries[0], message, size)) return 0;
    // Since CUDA 11.4; without them kernels are launched one by one.
    const struct entry graphs[] = {
        {"cuStreamBeginCapture_v2", (void **)&d->capture_begin},
        {"cuStreamEndCapture", (void **)&d->capture_end},
        {"cuGraphInstantiateWithFlags", (void **)&d->graph_instantiate},
        {"cuGraphUpload", (void **)&d->graph_upload},
        {"cuGraphLaunch", (void **)&d->graph_launch},
        {"cuGraphDestroy", (void **)&d->graph_destroy},
        {"cuGraphExecDestroy", (void **)&d->graph_exec_destroy},
    };
    const size_t count = sizeof graphs / sizeof graphs[0];
    char missing[256];
    if (!fill(library, graphs, count, missing, sizeof missing))
        for (size_t i = 0; i < count; i++) *graphs[i].slot = NULL;
    // Since CUDA 11.8.
    const struct entry attributes[] = {{"cuLaunchKernelEx", (void **)&d->launch_with}};
    fill(library, attributes, 1, missing, sizeof missing);
    return 1;
}

/// Opens `name`, in `folder` if that is given.
static void *open_in(const char *folder, const char *name, char *message, size_t size) {
    char path[4096];
    if (folder != NULL) {
        snprintf(path, sizeof path, "%s/%s", folder, name);
    } else {
        snprintf(path, sizeof path, "%s", name);
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *reason = dlerror();
        size_t used = strlen(message);
        snprintf(message + used, size - used, "%s%s", used ? "; " : "", reason ? reason : path);
    }
    return library;
}

int mk_nvrtc_open(mk_nvrtc *n, const char *path, char *message, size_t size) {
    static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
    void *library = NULL;
    message[0] = 0;
    struct stat status;
    if (path != NULL && stat(path, &status) == 0 && !S_ISDIR(status.st_mode)) {
        library = open_in(NULL, path, message, size);
    } else {
        for (size_t i = 0; library == NULL && i < sizeof names / sizeof names[0]; i++) {
            library = open_in(path, names[i], message, size);
        }
    }
    if (library == NULL) return 0;
    const struct entry entries[] = {
        {"nvrtcVersion", (void **)&n->version},
        {"nvrtcCreateProgram", (void **)&n->create},
        {"nvrtcDestroyProgram", (void **)&n->destroy},
        {"nvrtcCompileProgram", (void **)&n->compile},
        {"nvrtcGetCUBINSize", (void **)&n->cubin_size},
        {"nvrtcGetCUBIN", (void **)&n->cubin},
        {"nvrtcGetProgramLogSize", (void **)&n->log_size},
        {"nvrtcGetProgramLog", (void **)&n->log},
        {"nvrtcGetErrorString", (void **)&n->error_string},
    };
    message[0] = 0;
    return fill(library, entries, sizeof entries / sizeof entries[0], message, size);
}
