// Changed block tracking: epochs and changeIds, what QueryChangedDiskAreas answers, and its lies.
//
// Each changeId keeps the disk as it was frozen then; changes are found by comparing content. An
// epoch (the changeId's uuid) ends with a reset: of earlier ids nothing is known then.
package simulator

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const sector = 512

// tracker is the tracking of one disk of one VM during one epoch.
type tracker struct {
	uuid string
	seq  int
	lies []lie
}

// lie is a range whose changes between two changeIds are not reported.
type lie struct {
	extent
	after     int  // the changeId that was the newest
	allocated bool // not in answers to "*" either
}

func (vm *VirtualMachine) tracker(d *types.VirtualDisk) *tracker {
	key := vm.Self.Value + "/" + back(d).Uuid
	t := vadp.trackers[key]
	if t == nil {
		t = &tracker{uuid: spacedUUID(uuid.New().String())}
		vadp.trackers[key] = t
	}
	return t
}

func (t *tracker) file(seq int) string {
	return path.Join(vadp.state, "cbt", strings.ReplaceAll(t.uuid, " ", ""), strconv.Itoa(seq))
}

// track gives the disk, which is about to be frozen, a changeId; "" if tracking is off.
func (vm *VirtualMachine) track(d *types.VirtualDisk) (string, error) {
	if !isTrue(vm.Config.ChangeTrackingEnabled) {
		return "", nil
	}
	t := vm.tracker(d)
	t.seq++
	return fmt.Sprintf("%s/%d", t.uuid, t.seq), freeze(flat(back(d).FileName), t.file(t.seq))
}

// resetTracking ends the epochs of all disks of the VM.
func (vm *VirtualMachine) resetTracking(why string) {
	for key, t := range vadp.trackers {
		if strings.HasPrefix(key, vm.Self.Value+"/") {
			_ = os.RemoveAll(path.Dir(t.file(0)))
			delete(vadp.trackers, key)
		}
	}
	vm.logLine("vmx - Change tracking invalid; reinitializing (" + why + ")")
}

// vadpTracking is called before a reconfiguration: tracking that is turned off is lost.
func vadpTracking(vm *VirtualMachine, spec *types.VirtualMachineConfigSpec) {
	if spec.ChangeTrackingEnabled == nil || *spec.ChangeTrackingEnabled {
		return
	}
	vm.resetTracking("turned off")
	for _, d := range vmDisks(vm.Config.Hardware.Device) {
		if back(d) != nil {
			back(d).ChangeId = ""
		}
	}
}

// QueryChangedDiskAreas answers for a snapshot's disk, or the live one's without a snapshot.
func (vm *VirtualMachine) QueryChangedDiskAreas(req *types.QueryChangedDiskAreas) soap.HasFault {
	body := &methods.QueryChangedDiskAreasBody{}
	devices := vm.Config.Hardware.Device
	if req.Snapshot != nil {
		s, ok := Map.Get(*req.Snapshot).(*VirtualMachineSnapshot)
		if !ok {
			body.Fault_ = Fault("", &types.ManagedObjectNotFound{Obj: *req.Snapshot})
			return body
		}
		devices = s.Config.Hardware.Device
	}
	info, fault := vm.changedAreas(devices, req)
	if fault != nil {
		body.Fault_ = Fault(vadpMessage(fault), fault)
		return body
	}
	body.Res = &types.QueryChangedDiskAreasResponse{Returnval: *info}
	return body
}

func (vm *VirtualMachine) changedAreas(devices []types.BaseVirtualDevice, req *types.QueryChangedDiskAreas) (*types.DiskChangeInfo, types.BaseMethodFault) {
	var disk *types.VirtualDisk
	for _, d := range vmDisks(devices) {
		if d.Key == req.DeviceKey && back(d) != nil {
			disk = d
		}
	}
	if disk == nil {
		return nil, &types.InvalidArgument{InvalidProperty: "deviceKey"}
	}
	fileFault := &types.FileFault{File: back(disk).FileName}
	f, err := os.Open(flat(back(disk).FileName))
	if err != nil || back(disk).ChangeId == "" || !isTrue(vm.Config.ChangeTrackingEnabled) {
		return nil, fileFault
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fileFault
	}
	if req.StartOffset < 0 || req.StartOffset >= st.Size() {
		return nil, &types.InvalidArgument{InvalidProperty: "startOffset"}
	}
	var areas []extent
	if req.ChangeId == "*" {
		areas = units(segments(f, st.Size()), vadp.unit, st.Size())
		areas = without(areas, vm.tracker(disk).hidden(-1, 0))
	} else if areas = vm.changes(disk, f, st.Size(), req.ChangeId); areas == nil {
		return nil, fileFault
	}
	return spoil(answer(areas, req.StartOffset, st.Size()), st.Size()), nil
}

// changes are the areas changed since a changeId; nil if nothing is known of it.
func (vm *VirtualMachine) changes(disk *types.VirtualDisk, f *os.File, size int64, changeID string) []extent {
	t := vm.tracker(disk)
	now, seq := split(back(disk).ChangeId)
	then, since := split(changeID)
	if now != then || then != t.uuid || since < 1 || since > seq {
		return nil
	}
	old, err := os.Open(t.file(since))
	if err != nil {
		return nil
	}
	defer old.Close()
	areas := append([]extent{}, differences(f, old, size)...)
	return without(areas, t.hidden(since, seq))
}

func split(changeID string) (string, int) {
	at := strings.LastIndex(changeID, "/")
	if at < 0 {
		return changeID, 0
	}
	seq, _ := strconv.Atoi(changeID[at+1:])
	return changeID[:at], seq
}

// hidden are the lies about changes between two changeIds, or (since < 0) about what is allocated.
func (t *tracker) hidden(since, until int) []extent {
	var res []extent
	for _, l := range t.lies {
		if since < 0 && l.allocated || since >= 0 && since <= l.after && l.after < until {
			res = append(res, l.extent)
		}
	}
	return res
}
