// Disks that a test adds, of all kinds that a backup must know.
package simulator

import (
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/vim25/types"
)

// newDisk says how a test wants a disk added.
type newDisk struct {
	Size      int64
	Image     string
	Mode      string
	Kind      string
	Sharing   string
	Encrypted bool
}

func (vm *VirtualMachine) addDisk(n newDisk) (int32, error) {
	var specs []types.BaseVirtualDeviceConfigSpec
	add := func(d types.BaseVirtualDevice, op types.VirtualDeviceConfigSpecFileOperation) {
		specs = append(specs, &types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationAdd, FileOperation: op, Device: d,
		})
	}
	if n.Image != "" {
		st, err := os.Stat(n.Image)
		if err != nil {
			return 0, err
		}
		n.Size = st.Size()
	}
	controller, unit := vm.freeUnit(n.Sharing == "bus")
	if controller == nil {
		scsi := &types.ParaVirtualSCSIController{}
		scsi.Key, scsi.BusNumber = vm.freeBus()
		scsi.SharedBus = types.VirtualSCSISharingNoSharing
		if n.Sharing == "bus" {
			scsi.SharedBus = types.VirtualSCSISharingPhysicalSharing
		}
		add(scsi, "")
		controller = scsi
	}
	d := &types.VirtualDisk{}
	d.Key = vm.freeDiskKey()
	d.ControllerKey, d.UnitNumber = controller.GetVirtualController().Key, &unit
	d.Backing = vm.newBacking(n, d.Key)
	setCapacity(d, n.Size)
	add(d, types.VirtualDeviceConfigSpecFileOperationCreate)
	if fault := vm.configureDevices(&types.VirtualMachineConfigSpec{DeviceChange: specs}); fault != nil {
		return 0, fmt.Errorf("%T", fault)
	}
	if n.Image != "" && back(d) != nil {
		return d.Key, vm.attach(d, n.Image)
	}
	return d.Key, nil
}

func (vm *VirtualMachine) newBacking(n newDisk, key int32) types.BaseVirtualDeviceBackingInfo {
	file := types.VirtualDeviceFileBackingInfo{
		FileName: path.Dir(vm.Config.Files.VmPathName) + fmt.Sprintf("/disk-%d.vmdk", key),
	}
	sharing := ""
	if n.Sharing == "multiwriter" {
		sharing = string(types.VirtualDiskSharingSharingMultiWriter)
	}
	if strings.HasPrefix(n.Kind, "rdm") {
		return &types.VirtualDiskRawDiskMappingVer1BackingInfo{
			VirtualDeviceFileBackingInfo: file,
			LunUuid:                      "0200000000" + strings.ReplaceAll(uuid.New().String(), "-", ""),
			DeviceName:                   "vml.0200000000",
			CompatibilityMode:            strings.TrimPrefix(n.Kind, "rdm-") + "Mode",
			DiskMode:                     n.Mode,
			Uuid:                         newDiskUUID(),
			Sharing:                      sharing,
		}
	}
	b := &types.VirtualDiskFlatVer2BackingInfo{
		VirtualDeviceFileBackingInfo: file, DiskMode: n.Mode, ThinProvisioned: types.NewBool(true), Sharing: sharing,
	}
	if n.Encrypted {
		b.KeyId = &types.CryptoKeyId{KeyId: "disk-key", ProviderId: &types.KeyProviderId{Id: "kms"}}
	}
	return b
}

// freeUnit is a SCSI controller with a free unit; none if a new one is wanted.
func (vm *VirtualMachine) freeUnit(anew bool) (types.BaseVirtualController, int32) {
	taken := map[[2]int32]bool{}
	for _, d := range vm.Config.Hardware.Device {
		if v := d.GetVirtualDevice(); v.UnitNumber != nil {
			taken[[2]int32{v.ControllerKey, *v.UnitNumber}] = true
		}
	}
	for _, d := range vm.Config.Hardware.Device {
		c, ok := d.(types.BaseVirtualSCSIController)
		if anew || !ok || c.GetVirtualSCSIController().SharedBus != types.VirtualSCSISharingNoSharing {
			continue
		}
		for unit := int32(0); unit < 16; unit++ {
			if unit != 7 && !taken[[2]int32{d.GetVirtualDevice().Key, unit}] {
				return c.GetVirtualSCSIController(), unit
			}
		}
	}
	return nil, 0
}

func (vm *VirtualMachine) freeBus() (key, bus int32) {
	key = 1000
	for _, d := range vm.Config.Hardware.Device {
		if _, ok := d.(types.BaseVirtualSCSIController); ok {
			bus++
		}
		if d.GetVirtualDevice().Key >= key && d.GetVirtualDevice().Key < 2000 {
			key = d.GetVirtualDevice().Key + 1
		}
	}
	return key, bus
}

func (vm *VirtualMachine) freeDiskKey() int32 {
	key := int32(2000)
	for _, d := range vmDisks(vm.Config.Hardware.Device) {
		if d.Key >= key {
			key = d.Key + 1
		}
	}
	return key
}
