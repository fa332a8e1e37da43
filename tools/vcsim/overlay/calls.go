// What happens to a SOAP call before and after the stock simulator serves it: it is recorded, may
// be refused for a privilege or an injected fault, and its answer may get lost or garbled.
package simulator

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"reflect"
	"runtime/debug"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/vmware/govmomi/simulator/internal"
)

const maxCalls = 200000 // of which the older half is forgotten

type callRecord struct {
	Number int    `json:"number"`
	Method string `json:"method"`
	Target string `json:"target"`
	Vm     string `json:"vm"`
	Detail string `json:"detail"`
}

func record(method, target, vm, detail string) {
	vadp.callCount++
	if len(vadp.calls) >= maxCalls {
		vadp.calls = append([]callRecord{}, vadp.calls[maxCalls/2:]...)
	}
	vadp.calls = append(vadp.calls, callRecord{vadp.callCount, method, target, vm, detail})
}

type faultRule struct {
	rule
	Fault, Message string
	Fields         json.RawMessage
	Soap           bool
}

// make builds the fault; pyvmomi cannot read an empty moref, so the object called stands in.
func (r *faultRule) make(object types.ManagedObjectReference) (types.BaseMethodFault, error) {
	t, ok := types.TypeFunc()(r.Fault)
	if !ok {
		return nil, fmt.Errorf("no such fault: %s", r.Fault)
	}
	v := reflect.New(t)
	fault, ok := v.Interface().(types.BaseMethodFault)
	if !ok {
		return nil, fmt.Errorf("%s is not a fault", r.Fault)
	}
	stand := map[string]types.ManagedObjectReference{
		"Object": object, "Obj": object, "Task": {Type: "Task", Value: "task-0"},
	}
	for name, ref := range stand {
		if x := v.Elem().FieldByName(name); x.IsValid() && x.Type() == reflect.TypeOf(ref) {
			x.Set(reflect.ValueOf(ref))
		}
	}
	if len(r.Fields) != 0 {
		if err := json.Unmarshal(r.Fields, fault); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Fault, err)
		}
	}
	return fault, nil
}

// injected is the fault that a test wants of this call: at once, or in the task that it starts.
func injected(method *Method, vm string, inTask bool) (types.BaseMethodFault, string) {
	for _, r := range vadp.faults {
		if inTask == (r.Soap || !strings.HasSuffix(method.Name, vTaskSuffix)) {
			continue
		}
		if r.hits(method.Name, vm) {
			fault, _ := r.make(method.This)
			return fault, r.Message
		}
	}
	return nil, ""
}

// answerRule spoils the answer of a call. Mode: drop, lose, garbage, status, slow, panic.
type answerRule struct {
	rule
	Mode    string
	Status  int
	Seconds float64
}

// spoiled applies the test's rules to an answer: whether it was given here, and whether it must be
// lost after the call took effect.
func spoiled(w http.ResponseWriter, method, vm string) (answered, lost bool) {
	for _, r := range vadp.answers {
		if !r.hits(method, vm) {
			continue
		}
		switch r.Mode {
		case "drop":
			panic(http.ErrAbortHandler)
		case "lose":
			lost = true
		case "garbage":
			w.Header().Set("Content-Type", "text/xml")
			_, _ = w.Write([]byte("<html><body>Bad gateway</bod"))
			return true, false
		case "status":
			http.Error(w, "as the test wants", r.Status)
			return true, false
		case "panic":
			panic("as the test wants")
		case "slow":
			world.Unlock()
			time.Sleep(time.Duration(r.Seconds * float64(time.Second)))
			world.Lock()
		}
	}
	return false, lost
}

// vadpServe is called by ServeSDK, with the world held; nil means that the answer was given.
func vadpServe(ctx *Context, method *Method, call func() soap.HasFault) soap.HasFault {
	vm := vmOf(method)
	record(method.Name, method.This.Value, vm, detail(method))
	var answered, lost bool
	res := guarded(method, func() soap.HasFault {
		answered, lost = spoiled(ctx.res, method.Name, vm)
		return nil
	})
	if answered || res != nil {
		return res
	}
	if ctx.Session != nil || strings.HasPrefix(method.Name, "Login") {
		if f := refusal(method); f != nil {
			return &serverFaultBody{Reason: Fault("Permission to perform this operation was denied.", f)}
		}
		if f, message := injected(method, vm, false); f != nil {
			return &serverFaultBody{Reason: Fault(message, f)}
		}
	}
	vadp.outer = method
	res = guarded(method, call)
	vadp.outer = nil
	if strings.HasSuffix(method.Name, vTaskSuffix) || method.Name == "ShutdownGuest" {
		settle(vm)
	}
	if lost {
		panic(http.ErrAbortHandler)
	}
	return res
}

// guarded turns a panic into a fault, and into a line that the test's end looks for.
func guarded(method *Method, call func() soap.HasFault) (res soap.HasFault) {
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			panic(p)
		} else if p != nil {
			log.Printf("panic: %s: %v\n%s", method.Name, p, debug.Stack())
			res = serverFault(fmt.Sprint(p))
		}
	}()
	return call()
}

// vmOf is the VM that a call concerns: its object, that one's VM, or its argument.
func vmOf(method *Method) string {
	if method.This.Type == "VirtualMachine" {
		return method.This.Value
	}
	switch x := Map.Get(method.This).(type) {
	case *VirtualMachineSnapshot:
		return x.Vm.Value
	case *Task:
		if x.Info.Entity != nil && x.Info.Entity.Type == "VirtualMachine" {
			return x.Info.Entity.Value
		}
	}
	if body := reflect.ValueOf(method.Body); body.Kind() == reflect.Ptr && body.Elem().Kind() == reflect.Struct {
		if x := body.Elem().FieldByName("Vm"); x.IsValid() {
			if ref, ok := x.Interface().(types.ManagedObjectReference); ok {
				return ref.Value
			}
		}
	}
	return ""
}

func detail(method *Method) string {
	switch b := method.Body.(type) {
	case *types.CreateSnapshot_Task:
		return b.Name
	case *types.CreateSnapshotEx_Task:
		return b.Name
	case *types.QueryChangedDiskAreas:
		return fmt.Sprintf("%d %d %s", b.DeviceKey, b.StartOffset, b.ChangeId)
	case *types.RegisterVM_Task:
		return b.Path
	case *internal.Fetch:
		return b.This.Value + " " + b.Prop
	}
	return ""
}

// vadpAnonymous names a call as the stock simulator's list of those that need no session should:
// of objects, only the service's content and the session manager may be read.
func vadpAnonymous(method *Method) string {
	var objects []types.ManagedObjectReference
	var specs []types.PropertyFilterSpec
	switch b := method.Body.(type) {
	case *internal.Fetch:
		objects = append(objects, b.This)
	case *types.RetrieveProperties:
		specs = b.SpecSet
	case *types.RetrievePropertiesEx:
		specs = b.SpecSet
	default:
		return method.Name
	}
	for _, spec := range specs {
		for _, o := range spec.ObjectSet {
			objects = append(objects, o.Obj)
		}
	}
	for _, o := range objects {
		if o != vim25.ServiceInstance && o.Type != "SessionManager" {
			return "denied"
		}
	}
	return "Login"
}
