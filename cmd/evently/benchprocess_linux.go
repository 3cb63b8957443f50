package main

import "syscall"

// endWithParent makes the kernel kill the process when the thread that starts it ends: that thread has to live as long.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
