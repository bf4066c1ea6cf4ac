/* The planner's interpreter: CPython, stopped half-way in its initialization.
 *
 * Python makes itself ready in two phases (PEP 587). After the first there are types, builtins and imports of what is
 * compiled in; the second looks for the library, asks for codecs and opens streams, and is a fourth of the whole. A
 * start needs none of it. So this stops after the first, executes the bundle, and leaves the second to whoever asks for
 * a module that is neither in the bundle nor compiled in: `_halfway.complete()`, called by csrc/bundle_main.py.
 *
 * And it asks for its pages in one go. A start touches a thousand of them, and for each by itself the kernel wants
 * almost a microsecond.
 *
 *   home/python3 -I -S -Xutf8 -Xlibrary=LIBRARY  hot.cpython-3X.pyc  ARGS       as any other python3 is started
 *
 * Linked with the libpython.a of the interpreter that is installed (csrc/interpreter_build.py); the launcher prefers it
 * as long as that one is the same. Source: docs.python.org/3/c-api/init_config.html#multi-phase-initialization-private-
 * provisional-api, man 2 madvise.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <marshal.h>

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* of Linux 5.14: before it, a page is asked for when it is touched */
#define MADV_POPULATE_WRITE 23
#endif

#ifndef LEFT_OUT
#define LEFT_OUT "" /* see leave_out */
#endif

enum { FAILED = 125, PYC_HEADER = 16, PAGE_MASK = 4095 };

/* In libpython.a, but in no header for programs. Both are the second phase's; but Ctrl-C has to work before, and since
 * Python 3.13 whoever looks for a codec too early would die of it. */
extern int _PySignal_Init(int install_handlers);
#if PY_VERSION_HEX >= 0x030D0000
extern PyStatus _PyCodec_InitRegistry(PyInterpreterState *interpreter);
#endif

/* The linker's: where the program begins, where its variables do, and where they end. */
extern char __executable_start, __data_start, _end;

static void populate(const char *from, const char *to, int advice) {
    uintptr_t first = (uintptr_t)from & ~(uintptr_t)PAGE_MASK;
    madvise((void *)first, (uintptr_t)to - first, advice);
}

/* Python's small objects live in arenas of a megabyte. A start fills the first one and begins a second. */
static void *new_arena(void *context, size_t size) {
    static int count;
    char *arena = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (arena == MAP_FAILED) return NULL;
    if (count++ == 0) populate(arena, arena + size, MADV_POPULATE_WRITE);
    return arena;
}

static void free_arena(void *context, void *arena, size_t size) { munmap(arena, size); }

/* ── the second phase ────────────────────────────────────────────────────────────────────────────────────────────── */

static PyObject *complete(PyObject *self, PyObject *nothing) {
    static int begun;
    if (!begun++) { /* what it imports itself may ask for it */
        if (PyDict_DelItemString(PyImport_GetModuleDict(), "encodings") < 0) return NULL; /* see begin_codecs */
        PyStatus status = _Py_InitializeMain();
        if (PyStatus_Exception(status)) Py_ExitStatusException(status);
    }
    return Py_NewRef(Py_None);
}

static PyMethodDef functions[] = {{"complete", complete, METH_NOARGS, "Make the rest of the interpreter."}, {0}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_halfway", .m_size = -1,
                                        .m_methods = functions};

static PyObject *make_module(void) { return PyModule_Create(&definition); }

/* ── the first ───────────────────────────────────────────────────────────────────────────────────────────────────── */

/* `python3 -I -S -Xutf8 -X...`, without the words after it: those are the program's. */
static PyStatus begin(int argc, char **argv, int program) {
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    PyStatus status = Py_PreInitialize(&before);
    if (PyStatus_Exception(status)) return status;
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = config.parse_argv = 0;
    config._init_main = 0;
    status = PyConfig_SetBytesString(&config, &config.program_name, argv[0]);
    for (int i = 1; i < program && !PyStatus_Exception(status); i++) {
        wchar_t *option = Py_DecodeLocale(argv[i], NULL);
        if (!option) return PyStatus_NoMemory();
        if (wcsncmp(option, L"-X", 2) == 0) status = PyWideStringList_Append(&config.xoptions, option + 2);
        PyMem_RawFree(option);
    }
    if (!PyStatus_Exception(status)) status = PyConfig_SetBytesArgv(&config, argc - program, argv + program);
    if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    return status;
}

/* The registry of codecs imports `encodings` once, which is in the library: it finds an empty module. Who needs a codec
 * all the same is csrc/bundle_main.py's to serve. */
static int begin_codecs(void) {
    if (!PyImport_AddModule("encodings")) return -1;
#if PY_VERSION_HEX >= 0x030D0000
    PyStatus status = _PyCodec_InitRegistry(PyInterpreterState_Get());
    if (PyStatus_Exception(status)) Py_ExitStatusException(status);
#endif
    return 0;
}

/* The program's words and the library's directories, which are the second phase's to tell. */
static int tell_sys(int argc, char **argv, int program) {
    static const char LIBRARY[] = "-Xlibrary=";
    PyObject *words = PyList_New(0), *path = PyList_New(0);
    for (int i = program; i < argc; i++) {
        PyObject *word = PyUnicode_DecodeFSDefault(argv[i]);
        if (!words || !word || PyList_Append(words, word) < 0) return -1;
    }
    for (int i = 1; i < program; i++) {
        if (strncmp(argv[i], LIBRARY, sizeof LIBRARY - 1) != 0) continue;
        const char *library = argv[i] + sizeof LIBRARY - 1;
        PyObject *directory = PyUnicode_DecodeFSDefault(library);
        PyObject *compiled = directory ? PyUnicode_FromFormat("%U/lib-dynload", directory) : NULL;
        if (!path || !compiled || PyList_Append(path, directory) < 0 || PyList_Append(path, compiled) < 0) return -1;
    }
    return PySys_SetObject("argv", words) < 0 || PySys_SetObject("path", path) < 0 ? -1 : 0;
}

/* The code in a .pyc file; NULL with an exception set. */
static PyObject *code_of(const char *path) {
    struct stat status;
    char *text = NULL;
    PyObject *code = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &status) == 0) text = PyMem_Malloc((size_t)status.st_size + 1);
    if (text && read(fd, text, (size_t)status.st_size) == status.st_size && status.st_size > PYC_HEADER)
        code = PyMarshal_ReadObjectFromString(text + PYC_HEADER, status.st_size - PYC_HEADER);
    else PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
    PyMem_Free(text);
    if (fd >= 0) close(fd);
    return code;
}

static int execute(const char *path) {
    PyObject *program = PyImport_AddModule("__main__"), *code = code_of(path), *file = PyUnicode_DecodeFSDefault(path);
    if (!program || !code || !file) return -1;
    PyObject *names = PyModule_GetDict(program); /* importing asks for the builtins of whoever imports */
    if (PyDict_SetItemString(names, "__builtins__", PyEval_GetBuiltins()) < 0) return -1;
    if (PyDict_SetItemString(names, "__file__", file) < 0) return -1;
    return PyEval_EvalCode(code, names, names) ? 0 : -1;
}

/* Debian 13's libpython.a has a module _sha2 and not the functions it calls: the build then puts abort() in their
 * place, and there is no such module. hashlib has OpenSSL's. */
static void leave_out(const char *name) {
    struct _inittab *to = PyImport_Inittab;
    for (struct _inittab *from = to; from->name; from++)
        if (strcmp(from->name, name) != 0) *to++ = *from;
    to->name = NULL;
}

int main(int argc, char **argv) {
    PyObjectArenaAllocator arenas = {NULL, new_arena, free_arena};
    int program = 1;
    while (program < argc && argv[program][0] == '-') program++;
    if (program >= argc) return fprintf(stderr, "%s: no program given\n", argv[0]), FAILED;
    prctl(PR_SET_NAME, "python3"); /* executed by descriptor, it would have the file's name */
    populate(&__executable_start, &__data_start, MADV_POPULATE_READ);
    populate(&__data_start, &_end, MADV_POPULATE_WRITE);
    PyObject_SetArenaAllocator(&arenas);
    leave_out(LEFT_OUT);
    if (PyImport_AppendInittab("_halfway", make_module) < 0) return FAILED;
    PyStatus status = begin(argc, argv, program);
    if (PyStatus_Exception(status)) Py_ExitStatusException(status);
    if (_PySignal_Init(1) == 0 && begin_codecs() == 0 && tell_sys(argc, argv, program) == 0 &&
        execute(argv[program]) == 0)
        return 0;
    PyErr_Print();
    return FAILED;
}
