package peers

import "syscall"

// diesWithParent has the kernel end the child when its parent dies.
func diesWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGTERM }
