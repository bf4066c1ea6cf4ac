/* One static binary, several programs: the name it is called by decides. See the other files for each. */
#include "warm_client.h"
#include "main.h"

#include <linux/types.h>
#include <string.h>

_Static_assert(__BITS_PER_LONG == 8 * sizeof(long), "the kernel's headers are another architecture's");
_Static_assert(sizeof(long) == 8, "pyrun is for 64-bit machines: system calls of others take ids of 16 bits");

static const struct {
    const char *name;
    int (*main)(int, char **);
} PROGRAMS[] = {
    {"pyrun-guard", guard_main},   {"pyrun-init", init_main}, {"pyrun-monitor", monitor_main},
    {"pyrun-reaper", reaper_main}, {"pyrun-undo", undo_main},
};

int main(int argc, char **argv) {
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *name = slash ? slash + 1 : argc > 0 ? argv[0] : "";
    for (size_t i = 0; i < sizeof PROGRAMS / sizeof *PROGRAMS; i++)
        if (strcmp(name, PROGRAMS[i].name) == 0) return PROGRAMS[i].main(argc, argv);
    return launcher_main(argc, argv); /* pyrun, pyrun-oci, or whatever a user's link is called */
}
