// Tasks that take their time, hang, are cancelled, ask, or fail as a test wants.
package simulator

import (
	"fmt"
	"log"
	"runtime/debug"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const recentTasks = 16

// delayRule lets a task run before it takes effect; negative Seconds are for ever.
type delayRule struct {
	rule
	Seconds float64
}

type waitingTask struct {
	cancel, release chan struct{}
	cancelled       bool
}

// Run starts the task of a SOAP call; one inside another runs at once, as part of it.
func (t *Task) Run() types.ManagedObjectReference {
	call := vadp.outer
	vadp.outer = nil
	if call == nil || !strings.HasSuffix(call.Name, vTaskSuffix) {
		return t.runNow()
	}
	vm := vmOf(call)
	remember(t, vm)
	if fault, message := injected(call, vm, true); fault != nil {
		vadp.messages[fault] = message
		t.Execute = func(*Task) (types.AnyType, types.BaseMethodFault) { return nil, fault }
	}
	wait, asks := t.waits(call.Name, vm)
	if wait == nil && asks == nil {
		return t.runNow()
	}
	w := &waitingTask{cancel: make(chan struct{}), release: make(chan struct{})}
	vadp.waiting[t.Self] = w
	Map.Update(t, []types.PropertyChange{
		{Name: "info.startTime", Val: time.Now()},
		{Name: "info.state", Val: types.TaskInfoStateRunning},
		{Name: "info.cancelable", Val: true},
	})
	go t.runLater(vm, w, wait, asks)
	return t.Self
}

// waits is what this task has to wait for: a time that passes, a question that is answered.
func (t *Task) waits(method, vm string) (wait *delayRule, asks *questionRule) {
	for _, r := range vadp.delays {
		if r.hits(method, vm) {
			wait = r
			break
		}
	}
	for _, r := range vadp.questions {
		if r.hits(method, vm) {
			asks = r
			break
		}
	}
	return wait, asks
}

func (t *Task) runLater(vm string, w *waitingTask, wait *delayRule, asks *questionRule) {
	if asks != nil {
		leave := Enter()
		answered := ask(virtualMachine(vm), asks)
		leave()
		select {
		case <-answered:
		case <-w.cancel:
		}
	}
	if wait != nil {
		var over <-chan time.Time // nil: never
		if wait.Seconds >= 0 {
			over = time.After(time.Duration(wait.Seconds * float64(time.Second)))
		}
		select {
		case <-over:
		case <-w.release:
		case <-w.cancel:
		}
	}
	defer Enter()()
	delete(vadp.waiting, t.Self)
	Map.Update(t, []types.PropertyChange{{Name: "info.cancelable", Val: false}})
	if w.cancelled {
		t.Execute = func(*Task) (types.AnyType, types.BaseMethodFault) {
			return nil, new(types.RequestCanceled)
		}
		Map.Update(t, []types.PropertyChange{{Name: "info.cancelled", Val: true}})
	}
	defer func() {
		if p := recover(); p != nil {
			log.Printf("panic: %s: %v\n%s", t.Info.Name, p, debug.Stack())
		}
	}()
	t.runNow()
	settle(vm)
}

// CancelTask ends a task that waits, without its effect.
func (t *Task) CancelTask(*types.CancelTask) soap.HasFault {
	body := &methods.CancelTaskBody{Res: new(types.CancelTaskResponse)}
	w := vadp.waiting[t.Self]
	if w == nil {
		body.Res, body.Fault_ = nil, Fault("", new(types.InvalidState))
	} else if !w.cancelled {
		w.cancelled = true
		close(w.cancel)
	}
	return body
}

func releaseTasks() {
	vadp.delays = nil
	for _, w := range vadp.waiting {
		select {
		case <-w.release:
		default:
			close(w.release)
		}
	}
}

// remember adds the task to its VM's recent ones.
func remember(t *Task, moid string) {
	if vm := virtualMachine(moid); vm != nil {
		recent := append([]types.ManagedObjectReference{}, vm.RecentTask...)
		if len(recent) >= recentTasks {
			recent = recent[1:]
		}
		Map.Update(vm, []types.PropertyChange{{Name: "recentTask", Val: append(recent, t.Self)}})
	}
}

// vadpEntity is what TaskInfo.entity names: pyvmomi refuses what is no ManagedEntity.
func vadpEntity(ref types.ManagedObjectReference) (*types.ManagedObjectReference, string) {
	if s, ok := Map.Get(ref).(*VirtualMachineSnapshot); ok {
		ref = s.Vm
	}
	if vm := virtualMachine(ref.Value); vm != nil {
		return &ref, vm.Name
	}
	switch ref.Type {
	case "FileManager", "VirtualDiskManager", "HostDatastoreBrowser", "CustomizationSpecManager":
		return nil, ""
	}
	return &ref, ref.Value
}

// vadpMessage is the localized message of a task's fault.
func vadpMessage(fault types.BaseMethodFault) string {
	if message := vadp.messages[fault]; message != "" {
		delete(vadp.messages, fault)
		return message
	}
	switch f := fault.(type) {
	case *types.FileFault:
		return "Error caused by file " + f.File
	case *types.RequestCanceled:
		return "The task was canceled by a user."
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", fault), "*types.")
}
