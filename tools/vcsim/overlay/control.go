// The requests of the test that drives this simulator, one JSON object each; see tests/vcsim.
package simulator

import (
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

// Setup is what the command line says.
type Setup struct {
	User, Password, HotAdd, State string
}

// Prepare is called with a model that was made, before it is served: its VMs get their files.
func Prepare(s Setup) {
	vadp.user, vadp.password, vadp.hotAdd, vadp.state = s.User, s.Password, s.HotAdd, s.State
	for _, moid := range allVMs() {
		settle(moid)
	}
}

func allVMs() []string {
	var res []string
	for _, e := range Map.All("VirtualMachine") {
		res = append(res, e.Reference().Value)
	}
	number := func(moid string) int {
		n, _ := strconv.Atoi(moid[strings.LastIndex(moid, "-")+1:])
		return n
	}
	sort.Slice(res, func(i, j int) bool { return number(res[i]) < number(res[j]) })
	return res
}

type reply map[string]interface{}

// Control answers one request.
func Control(line []byte) interface{} {
	defer Enter()()
	var head struct{ Op, Vm string }
	if err := json.Unmarshal(line, &head); err != nil {
		return reply{"error": err.Error()}
	}
	res, err := reply{}, error(nil)
	if op, ok := vmRequests[head.Op]; ok {
		vm := virtualMachine(head.Vm)
		if vm == nil {
			return reply{"error": "no such VM: " + head.Vm}
		}
		res, err = op(vm, line)
		settle(head.Vm)
	} else if op, ok := requests[head.Op]; ok {
		res, err = op(line)
	} else {
		err = fmt.Errorf("no such request: %s", head.Op)
	}
	if err != nil {
		return reply{"error": err.Error()}
	}
	if res == nil {
		res = reply{}
	}
	return res
}

// requests concern no VM, or any.
var requests = map[string]func(line []byte) (reply, error){
	"vms":        func([]byte) (reply, error) { return reply{"vms": allVMs()}, nil },
	"datastores": func([]byte) (reply, error) { return reply{"paths": datastorePaths()}, nil },
	"file":       fileOf,
	"fault":      addFault,
	"question_any": func(l []byte) (reply, error) {
		r := &questionRule{}
		err := json.Unmarshal(l, r)
		r.Count = 1
		vadp.questions = append(vadp.questions, r)
		return nil, err
	},
	"slow_tasks":    func(l []byte) (reply, error) { return add(l, &vadp.delays) },
	"answer":        func(l []byte) (reply, error) { return add(l, &vadp.answers) },
	"read_fault":    func(l []byte) (reply, error) { return add(l, &vadp.reads) },
	"wrong_areas":   func(l []byte) (reply, error) { return add(l, &vadp.areas) },
	"release_tasks": func([]byte) (reply, error) { releaseTasks(); return nil, nil },
	"expire_sessions": func([]byte) (reply, error) {
		expireSessions()
		return nil, nil
	},
	"calls": func([]byte) (reply, error) {
		return reply{"calls": append([]callRecord{}, vadp.calls...)}, nil
	},
	"forget_calls": func([]byte) (reply, error) { vadp.calls = nil; return nil, nil },
	"clear":        func([]byte) (reply, error) { clearRules(); return nil, nil },
	"area_cap": func(l []byte) (reply, error) {
		c := struct{ Areas int }{}
		err := json.Unmarshal(l, &c)
		vadp.areaCap = c.Areas
		return nil, err
	},
	"granularity": func(l []byte) (reply, error) {
		c := struct {
			Size      int64
			Unaligned bool
		}{}
		if err := json.Unmarshal(l, &c); err != nil || c.Size < sector || c.Size%sector != 0 {
			return nil, fmt.Errorf("a granularity is a multiple of %d", sector)
		}
		vadp.unit, vadp.unaligned = c.Size, c.Unaligned
		return nil, nil
	},
	"false_positives": func(l []byte) (reply, error) {
		c := struct{ Every int64 }{}
		err := json.Unmarshal(l, &c)
		vadp.falsePositives = c.Every
		return nil, err
	},
	"lease_timeout": func(l []byte) (reply, error) {
		c := struct{ Seconds float64 }{}
		err := json.Unmarshal(l, &c)
		vadp.leaseTimeout = time.Duration(c.Seconds * float64(time.Second))
		return nil, err
	},
	"lock_live_files": func([]byte) (reply, error) { vadp.liveLocked = true; return nil, nil },
	"refuse_privilege": func(l []byte) (reply, error) {
		c := struct {
			Privilege string
			Refused   bool
		}{}
		err := json.Unmarshal(l, &c)
		vadp.refused[c.Privilege] = c.Refused
		return nil, err
	},
}

// vmRequests concern one VM.
var vmRequests = map[string]func(vm *VirtualMachine, line []byte) (reply, error){
	"attach":      attachImage,
	"live":        livePath,
	"write":       guestWrite,
	"add_disk":    addDisk,
	"remove_disk": removeDisk,
	"swap_disks":  swapDisks,
	"extend":      extendDisk,
	"lie":         addLie,
	"question":    addQuestion,
	"guest":       setGuest,
	"guest_program": func(vm *VirtualMachine, l []byte) (reply, error) {
		c := struct {
			Path     string
			ExitCode int32 `json:"exit_code"`
			Seconds  float64
		}{}
		err := json.Unmarshal(l, &c)
		guestOf(vm.Self.Value).programs[c.Path] = program{c.ExitCode, c.Seconds}
		return nil, err
	},
	"reset_cbt": func(vm *VirtualMachine, _ []byte) (reply, error) {
		vm.resetTracking("test")
		return nil, nil
	},
	"crash": func(vm *VirtualMachine, _ []byte) (reply, error) {
		vm.setPower(types.VirtualMachinePowerStatePoweredOff)
		vm.resetTracking("unclean power-off")
		return nil, nil
	},
	"proxy": func(vm *VirtualMachine, _ []byte) (reply, error) {
		vadp.proxies[vm.Self.Value] = true
		return nil, nil
	},
	"stun": func(vm *VirtualMachine, l []byte) (reply, error) {
		c := struct{ Microseconds int64 }{}
		err := json.Unmarshal(l, &c)
		vadp.stuns[vm.Self.Value] = c.Microseconds
		return nil, err
	},
	"answers": func(vm *VirtualMachine, _ []byte) (reply, error) {
		return reply{"answers": append([]string{}, vadp.answered[vm.Self.Value]...)}, nil
	},
	"connection": func(vm *VirtualMachine, l []byte) (reply, error) {
		c := struct{ State string }{}
		err := json.Unmarshal(l, &c)
		state := types.VirtualMachineConnectionState(c.State)
		Map.Update(vm, []types.PropertyChange{
			{Name: "runtime.connectionState", Val: state}, {Name: "summary.runtime.connectionState", Val: state},
		})
		return nil, err
	},
	"orphan_delta": func(vm *VirtualMachine, _ []byte) (reply, error) {
		ref, fault := vm.makeSnapshot("orphan", "", false)
		if fault != nil {
			return nil, fmt.Errorf("%T", fault)
		}
		vm.dropSnapshots([]types.ManagedObjectReference{ref.(types.ManagedObjectReference)}, false)
		return nil, nil
	},
	"leave_delta": func(vm *VirtualMachine, l []byte) (reply, error) {
		c := struct{ Count int }{}
		err := json.Unmarshal(l, &c)
		vadp.leftDeltas[vm.Self.Value] = c.Count
		return nil, err
	},
}

func clearRules() {
	releaseTasks()
	vadp.rules = newRules()
	for _, t := range vadp.trackers {
		t.lies = nil
	}
}

// add appends a rule to its list.
func add[T any](line []byte, list *[]*T) (reply, error) {
	r := new(T)
	if err := json.Unmarshal(line, r); err != nil {
		return nil, err
	}
	*list = append(*list, r)
	return nil, nil
}

func addFault(line []byte) (reply, error) {
	r := &faultRule{}
	if err := json.Unmarshal(line, r); err != nil {
		return nil, err
	}
	if _, err := r.make(types.ManagedObjectReference{}); err != nil {
		return nil, err
	}
	vadp.faults = append(vadp.faults, r)
	return nil, nil
}

func addQuestion(vm *VirtualMachine, line []byte) (reply, error) {
	r := &questionRule{}
	if err := json.Unmarshal(line, r); err != nil {
		return nil, err
	}
	if r.Count = 1; r.Method == "" {
		ask(vm, r)
	} else {
		vadp.questions = append(vadp.questions, r)
	}
	return nil, nil
}

func addLie(vm *VirtualMachine, line []byte) (reply, error) {
	c := struct {
		Offset, Length int64
		Key            int32
		Allocated      bool
	}{}
	if err := json.Unmarshal(line, &c); err != nil {
		return nil, err
	}
	d, err := vm.disk(c.Key)
	if err != nil {
		return nil, err
	}
	t := vm.tracker(d)
	t.lies = append(t.lies, lie{extent{c.Offset, c.Offset + c.Length}, t.seq, c.Allocated})
	return nil, nil
}

func fileOf(line []byte) (reply, error) {
	c := struct{ Path string }{}
	if err := json.Unmarshal(line, &c); err != nil {
		return nil, err
	}
	if file := dsFile(c.Path); file != "" {
		return reply{"path": file}, nil
	}
	return nil, fmt.Errorf("no such datastore: %s", c.Path)
}

func datastorePaths() map[string]string {
	res := map[string]string{}
	for _, e := range Map.All("Datastore") {
		res[e.Entity().Name] = e.(*Datastore).Info.GetDatastoreInfo().Url
	}
	return res
}
